"""Pixels as targets: patches of images, and images whose values are in [0, 1] again.

Shapes: B images, N patches, P pixels of a patch in the order row, column, channel.
"""

import jax
import jax.numpy as jnp


def patches(images: jax.Array, patch_size: tuple[int, int]) -> jax.Array:
    """Images (B, height, width, channels) as (B, N, P), patches in raster order.

    Edge pixels that do not fill a patch are left out.
    """
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size[0], width // patch_size[1]
    images = images[:, : rows * patch_size[0], : columns * patch_size[1]]
    grid = images.reshape(batch, rows, patch_size[0], columns, patch_size[1], channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, -1)


def denormalised(
    images: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
    """Images (B, height, width, channels), normalised by channel, in [0, 1] again, float32."""
    scale, shift = (jnp.asarray(values, jnp.float32)[None, None, None] for values in (std, mean))
    return images.astype(jnp.float32) * scale + shift


def normalised(pixels: jax.Array, *, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Pixels (..., C) in [0, 1], normalised by channel, float32: undoes `denormalised`."""
    shape = (1,) * (pixels.ndim - 1) + (-1,)
    shift, scale = (jnp.asarray(values, jnp.float32).reshape(shape) for values in (mean, std))
    return (pixels - shift) / scale


def joined(patches: jax.Array, *, grid: tuple[int, int], patch_size: tuple[int, int]) -> jax.Array:
    """The images (B, height, width, channels) of their patches (B, N, P): undoes `patches`."""
    batch, (rows, columns), (height, width) = patches.shape[0], grid, patch_size
    cut = patches.reshape(batch, rows, columns, height, width, -1)
    return cut.swapaxes(2, 3).reshape(batch, rows * height, columns * width, -1)


def statistics(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation (B, N, 1) of the pixels of every patch (B, N, P), as MAE defines them."""
    # The original uses the unbiased variance.
    mean, variance = patches.mean(-1, keepdims=True), patches.var(-1, ddof=1, keepdims=True)
    return mean, jnp.sqrt(variance + 1e-6)


def places_of(marked: jax.Array, count: int) -> jax.Array:
    """The indices int (B, count) of the marked patches, bool (B, N), in order.

    Where fewer are marked, the first of the others follow.
    """
    return jnp.argsort(~marked, axis=1, stable=True)[:, :count]
