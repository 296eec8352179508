"""What a pretrained model makes of hidden patches, for pictures: equal to a plain computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.models.decoder import DecoderOptions
from vit_jax.objectives.beit import MaskedImageModeling
from vit_jax.objectives.mae import MaskedAutoencoding, patch_noise
from vit_jax.objectives.masked_patch import MaskedPatchPrediction, colours, corruption, pixels_of
from vit_jax.objectives.pixels import joined, normalised, patches

SIZE, PATCH, GRID = (16, 24), (4, 4), (4, 6)
MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.5)
SAMPLE = np.stack([np.zeros(2, np.uint32), np.arange(2, dtype=np.uint32)], axis=1)


@pytest.fixture(scope="module")
def batch():
    pixels = jnp.asarray(np.random.default_rng(0).uniform(size=(2, *SIZE, 3)), jnp.float32)
    return {
        "image": normalised(pixels, mean=MEAN, std=STD),
        "sample_index": jnp.asarray(SAMPLE),
    }


def restored(objective, model, batch, **given):
    bound = objective.bound(mean=MEAN, std=STD)
    arguments = {"frozen": {}, "decode": None} | given
    found = jax.jit(lambda batch: bound.restored(model, batch, **arguments))(batch)
    return [np.asarray(part, np.float64) for part in found]


def test_joined_patches_are_the_images(batch):
    cut = patches(batch["image"], (8, 6))
    np.testing.assert_array_equal(joined(cut, grid=(2, 4), patch_size=(8, 6)), batch["image"])


@pytest.mark.parametrize("normalise", [True, False])
def test_masked_autoencoder_paints_hidden_patches_with_their_own_statistics(batch, normalise):
    decoder = DecoderOptions(width=16, depth=1, mlp_dim=16, num_heads=2)
    model = tiny.model(patch_size=PATCH, num_classes=0, decoder=decoder)
    seen, predicted = restored(MaskedAutoencoding(normalise=normalise), model, batch)
    noise = patch_noise(batch["sample_index"], model.options, key=jax.random.key(3))
    outputs, mask = model.reconstruct(batch["image"], noise=noise)
    outputs, true = np.asarray(outputs, np.float64), np.asarray(patches(batch["image"], PATCH))
    for image, patch in np.ndindex(mask.shape):
        pixels = outputs[image, patch]
        if not mask[image, patch]:
            np.testing.assert_array_equal(predicted[image, patch], true[image, patch])
            np.testing.assert_array_equal(seen[image, patch], true[image, patch])
            continue
        if normalise:
            own = true[image, patch].astype(np.float64)
            pixels = pixels * np.sqrt(own.var(ddof=1) + 1e-6) + own.mean()
        assert np.isnan(seen[image, patch]).all()
        assert_close(predicted[image, patch], pixels, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("target", ["mean_colour", "colours_4x4", "pixels"])
def test_masked_patches_are_painted_with_the_most_likely_colour(batch, target):
    objective = MaskedPatchPrediction(target=target)
    outputs = {"mean_colour": 512, "colours_4x4": 16 * 512, "pixels": 48}[target]
    model = tiny.model(patch_size=PATCH, num_classes=0, mask_token=True, mim_classes=outputs)
    seen, predicted = restored(objective, model, batch)
    changes = corruption(batch["sample_index"], model.options, share=0.5, key=jax.random.key(3))
    true = np.asarray(patches(batch["image"], PATCH))
    masked, corrupted = np.asarray(changes.masked), np.asarray(changes.corrupted)
    np.testing.assert_array_equal(np.isnan(seen).all(axis=2), masked)
    other = np.take_along_axis(true, np.asarray(changes.source)[..., None], axis=1)
    np.testing.assert_array_equal(seen[~masked], other[~masked])
    np.testing.assert_array_equal(predicted[~corrupted], true[~corrupted])
    logits = model.patch_logits(batch["image"], mask=changes.masked, source=changes.source)
    if target == "pixels":
        assert_close(predicted[corrupted], np.asarray(logits)[corrupted], atol=1e-4)
        return
    side = 4 if target == "colours_4x4" else 1
    best = np.asarray(logits).reshape(2, 24, side**2, 512).argmax(-1)
    painted = normalised_back(predicted).reshape(2, 24, 4, 4, 3)
    for image, patch in np.argwhere(corrupted):
        pixel = painted[image, patch, 0, 3]  # at the top right
        colour = best[image, patch, side - 1]
        middle = [(colour // 8**channel % 8 + 0.5) / 8 for channel in range(3)]
        assert_close(pixel, middle, atol=1e-5)


def normalised_back(values: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape[:2], -1, 3) * STD + MEAN


@pytest.mark.parametrize("side", [1, 4])
def test_pixels_of_colours_have_these_colours(side):
    shape = (2, 24, side**2)
    wanted = np.random.default_rng(0).integers(0, 512, shape)
    pixels = pixels_of(jnp.asarray(wanted), PATCH, channels=3)
    images = joined(pixels, grid=GRID, patch_size=PATCH)
    np.testing.assert_array_equal(colours(images, PATCH, side=side), wanted)


def test_hidden_visual_tokens_are_predicted_and_the_others_true(batch):
    """The tokenizer is an argument: here token 3 everywhere, decoded as an image of its number."""
    model = tiny.model(patch_size=PATCH, num_classes=0, mask_token=True, mim_classes=12)
    true = jax.nn.one_hot(jnp.full((2, *GRID), 3), 12)

    def decode(tokens):
        values = jnp.broadcast_to(tokens[..., None].astype(jnp.float32), (2, *GRID, 48))
        return joined(values.reshape(2, 24, 48), grid=GRID, patch_size=PATCH)

    objective = MaskedImageModeling(hidden=6, smallest_block=2)
    frozen = {"tokenizer": lambda images: true}
    seen, predicted = restored(objective, model, batch, frozen=frozen, decode=decode)
    hidden = np.isnan(seen).all(axis=2)
    assert 0 < hidden.sum(axis=1).max() <= 6
    best = np.asarray(model.patch_logits(batch["image"], mask=jnp.asarray(hidden))).argmax(-1)
    np.testing.assert_array_equal(predicted, np.where(hidden, best, 3)[..., None] * np.ones(48))
    assert objective.restored(model, batch, frozen=frozen, decode=None) is None
