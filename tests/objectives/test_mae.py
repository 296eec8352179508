"""The loss of masked autoencoders: which pixels count, and how targets are normalised."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.objectives import mae


def test_patches_are_in_raster_order_with_pixels_row_column_channel():
    images = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = mae.patches(images, (2, 3))
    assert patches.shape == (2, 4, 18)
    np.testing.assert_array_equal(patches[1, 3], images[1, 2:, 3:].reshape(-1))


def test_only_hidden_patches_count():
    images = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    mask = jnp.array([[True, False, False, True]])
    target = mae.patches(images, (2, 2))
    wrong = target.at[0, 1].add(5.0)
    assert mae.loss(wrong, images, mask=mask, patch_size=(2, 2), normalise=False) == 0
    wrong = target.at[0, 0].add(3.0)
    loss = mae.loss(wrong, images, mask=mask, patch_size=(2, 2), normalise=False)
    np.testing.assert_allclose(loss, 9 / 2, rtol=1e-5)


def test_normalised_targets_ignore_brightness_and_contrast():
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    prediction = jax.random.normal(jax.random.key(1), (1, 4, 48))
    mask = jnp.ones((1, 4), bool)
    plain, changed = (
        mae.loss(prediction, x, mask=mask, patch_size=(4, 4)) for x in (images, 3 * images + 2)
    )
    np.testing.assert_allclose(plain, changed, rtol=1e-4)
