"""Position embeddings: the fixed table, and the change of a learned table's grid or patch.

Grids are (rows, columns); tables are (1, prefix + rows * columns, D) in raster order, where the
prefix rows belong to tokens that are not patches (the class token).
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models import interpolation
from vit_jax.models.interpolation import Method, RelativeMethod, geometric_matrix, matrix

Grid = tuple[int, int]


def sincos2d(
    grid: Grid, width: int, *, temperature: float = 10_000.0, endpoint: bool = True
) -> np.ndarray:
    """Fixed table (1, rows * columns, D): sin x, cos x, sin y, cos y, a quarter of D each.

    Frequencies run from 1 to 1/temperature, inclusive as in MoCo v3 and big_vision, exclusive
    (without the `endpoint`) as in MAE. Raises ValueError unless D is a multiple of 4, 8 at least.
    """
    if width % 4 or width < 8:
        raise ValueError(f"sincos2d positions need a width of 8, 12, 16, ..., got {width}")
    y, x = np.mgrid[: grid[0], : grid[1]].astype(np.float64)
    omega = temperature ** -(np.arange(width // 4) / (width // 4 - endpoint))
    y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table[None].astype(np.float32)


def relative_index(grid: Grid) -> np.ndarray:
    """Row of a relative table for every query and key: (1 + N, 1 + N) int, class token first.

    The table has (2 rows - 1)(2 columns - 1) rows, one for each offset of two patches, and then
    three: from the class token to anything, from anything to it, and from it to itself (BEiT).
    """
    height, width = grid
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    down, right = (axis[:, None] - axis[None, :] for axis in (y, x))
    offsets = (2 * height - 1) * (2 * width - 1)
    index = np.empty((1 + y.size, 1 + y.size), np.int32)
    index[1:, 1:] = (down + height - 1) * (2 * width - 1) + right + width - 1
    index[0], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
    return index


def join_2d(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Table (..., rows * columns, D) of a learned row (..., rows, D/2) and column embedding.

    The first half of D tells the column (x), the second the row (y), as in the paper's D.4.
    """
    height, width, half = rows.shape[-2], columns.shape[-2], rows.shape[-1]
    lead = rows.shape[:-2]
    x = jnp.broadcast_to(columns[..., None, :, :], (*lead, height, width, half))
    y = jnp.broadcast_to(rows[..., :, None, :], (*lead, height, width, half))
    return jnp.concatenate([x, y], axis=-1).reshape(*lead, height * width, 2 * half)


def resize(
    table: np.ndarray, *, source: Grid, target: Grid, method: Method = "align_corners"
) -> np.ndarray:
    """Interpolates (..., prefix + source tokens, D) to the target grid; prefix rows are kept.

    The default is the method of vit_jax and big_vision (paper, section 3.2), where it is
    `scipy.ndimage.zoom(order=1)`. Works on any leading axes, any grids. Raises ValueError where
    the table has fewer rows than the source grid has points.
    """
    table = np.asarray(table)
    prefix, patches = _split(table, source[0] * source[1])
    if source != target:
        rows, columns = (matrix(a, b, method) for a, b in zip(source, target, strict=True))
        patches = interpolation.resize(patches, (rows, columns), source)
    return np.concatenate([prefix, patches], axis=-2)


def resize_relative(
    table: np.ndarray, *, source: Grid, target: Grid, method: RelativeMethod = "geometric_cubic"
) -> np.ndarray:
    """Relative biases (..., (2h-1)(2w-1) + extra, H) of a window h x w, for another window.

    The extra rows at the end (of the class token) are kept.
    """
    interpolation.check(method, RelativeMethod)
    table = np.asarray(table)
    old, new = ((2 * h - 1, 2 * w - 1) for h, w in (source, target))
    count = old[0] * old[1]
    if table.shape[-2] < count:
        raise ValueError(f"{table.shape[-2]} relative biases are fewer than {count} of {source}")
    offsets, extra = np.split(table, [count], axis=-2)
    if old == new:
        return table
    axes = list(zip(old, new, strict=True))
    if method == "bicubic" or method == "bilinear":
        matrices = [matrix(a, b, method) for a, b in axes]
    else:
        cubic = method == "geometric_cubic"
        matrices = [geometric_matrix(a, b, cubic=cubic) for a, b in axes]
    offsets = interpolation.resize(offsets, (matrices[0], matrices[1]), old)
    return np.concatenate([offsets, extra], axis=-2)


def resize_rows(table: np.ndarray, size: int) -> np.ndarray:
    """Interpolates the rows of (..., rows, D) linearly, first and last kept: for 1D tables."""
    table = np.asarray(table)
    rows = matrix(table.shape[-2], size, "align_corners")
    return np.einsum("ih,...hd->...id", rows, table.astype(np.float64)).astype(table.dtype)


def resample_patch(
    kernel: np.ndarray, size: tuple[int, int], *, method: Method = "bicubic_antialias"
) -> np.ndarray:
    """A patch embedding (h, w, C, D) for patches of another size. FlexiViT (2212.08013), sec. 3.4.

    The pseudo-inverse of resizing a patch: a smaller image of larger patches, resized, gives the
    same tokens. timm resizes bicubic with antialias, the paper's code "bilinear".
    """
    kernel = np.asarray(kernel)
    old = kernel.shape[:2]
    if old == tuple(size):
        return kernel
    # The pseudo-inverse of a Kronecker product is that of its factors.
    rows, columns = (np.linalg.pinv(matrix(a, b, method)) for a, b in zip(old, size, strict=True))
    out = np.einsum("hi,wj,hwcd->ijcd", rows, columns, kernel.astype(np.float64), optimize=True)
    return out.astype(kernel.dtype)


def _split(table: np.ndarray, count: int) -> list[np.ndarray]:
    """Prefix rows and patch rows."""
    if table.shape[-2] < count:
        raise ValueError(f"{table.shape[-2]} positions are fewer than the grid's {count}")
    return np.split(table, [table.shape[-2] - count], axis=-2)
