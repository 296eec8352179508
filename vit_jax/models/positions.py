"""Position embeddings: fixed tables, and resizing learned tables and patch embeddings.

Grids are (rows, columns). Tables are (1, prefix + rows * columns, D) in raster order, where the
prefix rows belong to tokens that are not patches (the class token). Shapes: N patches, D width,
C channels, H heads.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models import interpolation
from vit_jax.models.interpolation import Array, Method, RelativeMethod, geometric_matrix, matrix

Grid = tuple[int, int]


def sincos2d(
    grid: Grid, width: int, *, temperature: float = 10_000.0, endpoint: bool = True
) -> np.ndarray:
    """Fixed table (1, rows * columns, D): sin x, cos x, sin y, cos y, a quarter of D each.

    Frequencies run from 1 to 1/temperature. The last one is included with `endpoint` (MoCo v3,
    big_vision) and left out without it (MAE). Raises ValueError unless D is 8, 12, 16, ...
    """
    if width % 4 or width < 8:
        raise ValueError(f"sincos2d positions need a width of 8, 12, 16, ..., got {width}")
    y, x = np.mgrid[: grid[0], : grid[1]].astype(np.float64)
    omega = temperature ** -(np.arange(width // 4) / (width // 4 - endpoint))
    y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table[None].astype(np.float32)


def fixed_table(grid: Grid, width: int, *, prefix: int) -> np.ndarray:
    """MAE's table (1, prefix + rows * columns, D): sines for the patches, zero for the others."""
    table = sincos2d(grid, width, endpoint=False)
    return np.pad(table, ((0, 0), (prefix, 0), (0, 0)))


def moco(grid: Grid, width: int) -> np.ndarray:
    """MoCo v3's fixed table (1, rows * columns, D): sin y, cos y, sin x, cos x.

    This table is in raster order for every grid; the original's is only for square grids.
    """
    x, y = np.split(sincos2d(grid, width, endpoint=False), 2, axis=-1)
    return np.concatenate([y, x], axis=-1)


def is_moco(table: Array, grid: Grid) -> bool:
    """Whether a table (1, rows * columns, D) is MoCo v3's, to the precision of float16."""
    width = table.shape[-1]
    if width % 4 or width < 8 or table.shape != (1, grid[0] * grid[1], width):
        return False
    return bool(np.abs(np.asarray(table) - moco(grid, width)).max() < 1e-3)


def relative_index(grid: Grid) -> np.ndarray:
    """Row of a relative table for each query and key: (1 + N, 1 + N) int, class token first.

    The table has (2 rows - 1)(2 columns - 1) rows, one for each offset between two patches, then
    three more: from the class token to anything, from anything to it, and from it to itself (BEiT).
    """
    height, width = grid
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    down, right = (axis[:, None] - axis[None, :] for axis in (y, x))
    offsets = (2 * height - 1) * (2 * width - 1)
    index = np.empty((1 + y.size, 1 + y.size), np.int32)
    index[1:, 1:] = (down + height - 1) * (2 * width - 1) + right + width - 1
    index[0], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
    return index


def offset_biases(table: jax.Array, grid: Grid) -> jax.Array:
    """The biases between patches of a relative table (..., rows, H), by the key's offset.

    Returns (..., 2 rows - 1, 2 columns - 1, H); the rows of the class token are left out.
    """
    height, width = (2 * side - 1 for side in grid)
    biases = table[..., : height * width, :].reshape(*table.shape[:-2], height, width, -1)
    return jnp.flip(biases, (-3, -2))  # the table has the offsets of the query from the key


def join_2d(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Joins learned tables (..., rows, D/2) and (..., columns, D/2): (..., rows * columns, D).

    The first half of D encodes the column (x), the second half the row (y); paper, appendix D.4.
    """
    height, width, half = rows.shape[-2], columns.shape[-2], rows.shape[-1]
    lead = rows.shape[:-2]
    x = jnp.broadcast_to(columns[..., None, :, :], (*lead, height, width, half))
    y = jnp.broadcast_to(rows[..., :, None, :], (*lead, height, width, half))
    return jnp.concatenate([x, y], axis=-1).reshape(*lead, height * width, 2 * half)


def resize(table: Array, *, source: Grid, target: Grid, method: Method = "align_corners") -> Array:
    """Interpolates (..., prefix + source tokens, D) to the target grid; prefix rows are kept.

    The default is the method of vit_jax and big_vision, `scipy.ndimage.zoom(order=1)` (paper,
    section 3.2). Works with any leading axes, any grids, and on traced arrays, except that the
    method "sincos2d" must see the values. Raises ValueError if the table has fewer rows than the
    source grid has points.
    """
    prefix = table.shape[-2] - source[0] * source[1]
    if prefix < 0:
        raise ValueError(
            f"{table.shape[-2]} positions are fewer than the grid's {source[0] * source[1]}"
        )
    if source == target:
        return table
    if method == "sincos2d" and is_moco(table[..., prefix:, :], source):
        library: Any = jnp if isinstance(table, jax.Array) else np
        fixed = library.asarray(moco(target, table.shape[-1]), table.dtype)
        return _concatenated(table[..., :prefix, :], fixed)
    rows, columns = (matrix(a, b, method) for a, b in zip(source, target, strict=True))
    patches = interpolation.resize(table[..., prefix:, :], (rows, columns), source)
    return _concatenated(table[..., :prefix, :], patches)


def resize_relative(
    table: Array, *, source: Grid, target: Grid, method: RelativeMethod = "geometric_cubic"
) -> Array:
    """Resizes relative biases (..., (2h-1)(2w-1) + extra, H) of a window h x w.

    The extra rows at the end (of the class token) are kept.
    """
    interpolation.check(method, RelativeMethod)
    old, new = ((2 * h - 1, 2 * w - 1) for h, w in (source, target))
    count = old[0] * old[1]
    if table.shape[-2] < count:
        raise ValueError(
            f"{table.shape[-2]} relative biases are fewer than the {count} of a window {source}"
        )
    if old == new:
        return table
    axes = list(zip(old, new, strict=True))
    if method == "bicubic" or method == "bilinear":
        matrices = [matrix(a, b, method) for a, b in axes]
    else:
        cubic = method == "geometric_cubic"
        matrices = [geometric_matrix(a, b, cubic=cubic) for a, b in axes]
    offsets = interpolation.resize(table[..., :count, :], (matrices[0], matrices[1]), old)
    return _concatenated(offsets, table[..., count:, :])


def resize_rows(table: Array, size: int) -> Array:
    """Interpolates the rows of a 1D table (..., rows, D) linearly, keeping the first and last."""
    count = table.shape[-2]
    matrices = matrix(count, size, "align_corners"), np.eye(1)
    return interpolation.resize(table, matrices, (count, 1))


def resample_patch(
    kernel: Array, size: tuple[int, int], *, method: Method = "bicubic_antialias"
) -> Array:
    """Resizes a patch embedding (h, w, C, D). FlexiViT (2212.08013), section 3.4.

    This applies the pseudo-inverse of resizing a patch, so that an image resized together with its
    patches gives the same tokens. timm uses the default method, the paper's code "bilinear".
    """
    old = kernel.shape[:2]
    if old == tuple(size):
        return kernel
    # The pseudo-inverse of a Kronecker product is the product of the factors' pseudo-inverses.
    rows, columns = (np.linalg.pinv(matrix(a, b, method)) for a, b in zip(old, size, strict=True))
    return interpolation.contract("hi,wj,hwcd->ijcd", (rows, columns), kernel)


def _concatenated(first: Array, second: Array) -> Array:
    """Appends the rows of `second` to those of `first`; both are NumPy or both JAX arrays."""
    if isinstance(first, jax.Array):
        return jnp.concatenate([first, second], axis=-2)
    return np.concatenate([first, second], axis=-2)
