"""Position embeddings: the fixed table, and the change of a learned table's grid.

Grids are (rows, columns); tables are (1, prefix + rows * columns, D) in raster order, where the
prefix rows belong to tokens that are not patches (the class token).
"""

import jax
import jax.numpy as jnp
import numpy as np

Grid = tuple[int, int]


def sincos2d(grid: Grid, width: int, *, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed table (1, rows * columns, D): sin x, cos x, sin y, cos y, a quarter of D each.

    Frequencies run from 1 to 1/temperature inclusive, as in MoCo v3 and big_vision. Raises
    ValueError unless D is a multiple of 4, 8 at least.
    """
    if width % 4 or width < 8:
        raise ValueError(f"sincos2d positions need a width of 8, 12, 16, ..., got {width}")
    y, x = np.mgrid[: grid[0], : grid[1]].astype(np.float64)
    omega = temperature ** -(np.arange(width // 4) / (width // 4 - 1))
    y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table[None].astype(np.float32)


def join_2d(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Table (..., rows * columns, D) of a learned row (..., rows, D/2) and column embedding.

    The first half of D tells the column (x), the second the row (y), as in the paper's D.4.
    """
    height, width, half = rows.shape[-2], columns.shape[-2], rows.shape[-1]
    lead = rows.shape[:-2]
    x = jnp.broadcast_to(columns[..., None, :, :], (*lead, height, width, half))
    y = jnp.broadcast_to(rows[..., :, None, :], (*lead, height, width, half))
    return jnp.concatenate([x, y], axis=-1).reshape(*lead, height * width, 2 * half)


def resize(table: jax.typing.ArrayLike, *, source: Grid, target: Grid) -> jax.Array:
    """Interpolates (..., prefix + source tokens, D) to the target grid; prefix rows are kept.

    Linear with the corners of both grids aligned: the method of vit_jax and big_vision (paper,
    section 3.2), where it is `scipy.ndimage.zoom(order=1)`. Works on any leading axes, any grids.
    """
    table = jnp.asarray(table)
    count = source[0] * source[1]
    prefix, patches = jnp.split(table, [table.shape[-2] - count], axis=-2)
    patches = patches.reshape(*table.shape[:-2], *source, table.shape[-1])
    patches = _resize_axis(patches, target[0], axis=-3)
    patches = _resize_axis(patches, target[1], axis=-2)
    patches = patches.reshape(*table.shape[:-2], target[0] * target[1], table.shape[-1])
    return jnp.concatenate([prefix, patches], axis=-2)


def resize_rows(table: jax.typing.ArrayLike, size: int) -> jax.Array:
    """Interpolates the rows of (..., rows, D) linearly, first and last kept: for 1D tables."""
    return _resize_axis(jnp.asarray(table), size, axis=-2)


def _resize_axis(x: jax.Array, size: int, *, axis: int) -> jax.Array:
    old = x.shape[axis]
    if size == old:
        return x
    # scipy's zoom: one target row reads the first source row; one source row is repeated.
    where = np.linspace(0, old - 1, size) if size > 1 else np.zeros(1)
    low = np.minimum(where.astype(int), max(old - 2, 0))
    share = jnp.asarray(where - low, x.dtype).reshape(-1, *[1] * (-axis - 1))
    share = share.reshape((1,) * (x.ndim - share.ndim) + share.shape)
    high = np.minimum(low + 1, old - 1)
    return jnp.take(x, low, axis=axis) * (1 - share) + jnp.take(x, high, axis=axis) * share
