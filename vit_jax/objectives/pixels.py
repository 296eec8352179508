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
