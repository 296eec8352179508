"""Masked autoencoding: the error of the predicted pixels of hidden patches.

"Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377). Shapes: B images, N patches,
P pixels of a patch in the order row, column, channel.
"""

import jax
import jax.numpy as jnp


def loss(
    prediction: jax.Array,  # (B, N, P)
    images: jax.Array,  # (B, height, width, channels)
    *,
    mask: jax.Array,  # (B, N) bool, True where hidden
    patch_size: tuple[int, int],
    normalise: bool = True,
) -> jax.Array:
    """Mean squared error over the hidden patches of the batch, float32 ().

    With `normalise` every patch of the target has zero mean and unit variance (section 4.1,
    "reconstruction target").
    """
    target = patches(images.astype(jnp.float32), patch_size)
    if normalise:
        # As the original, with the unbiased variance.
        mean, variance = target.mean(-1, keepdims=True), target.var(-1, ddof=1, keepdims=True)
        target = (target - mean) / jnp.sqrt(variance + 1e-6)
    assert prediction.shape == target.shape, (prediction.shape, target.shape)
    error = jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
    return jnp.where(mask, error, 0).sum() / mask.sum()


def patches(images: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Images (B, height, width, channels) as (B, N, P), patches in raster order."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size[0], width // patch_size[1]
    grid = images.reshape(batch, rows, patch_size[0], columns, patch_size[1], channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, -1)
