"""Interpolation as exact matrices: each resizes one axis from `source` to `target` points.

The families of models resize their tables with different libraries, and each method here gives the
numbers of one of those libraries. A grid is resized by one matrix per axis, so every grid can
become every other. The matrices are float64 NumPy arrays that depend on sizes alone, so they can
be applied to arrays of JAX too, under `jit` and `grad`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

Method = Literal[
    "align_corners",  # linear, first and last points kept: vit_jax, big_vision (scipy's zoom)
    "bicubic",  # no antialias: DeiT, MAE, BEiT, Hugging Face
    "bicubic_antialias",  # timm
    "bilinear",  # no antialias: timm's reader of .npz; FlexiViT (tf.image.resize)
    "bilinear_antialias",
    "bicubic_align_corners",  # first and last points kept: torchvision
    "bicubic_offset",  # scaled as if the target had 0.1 points more: facebookresearch's DINOv2
    "keys_offset",  # the same scale with JAX's bicubic: DINOv2 in Flax
    "sincos2d",  # recompute a fixed table; "bicubic" for other tables: MoCo v3
]
RelativeMethod = Literal[
    "geometric_cubic",  # BEiT (scipy's interp2d)
    "geometric_linear",  # timm
    "bicubic",  # Swin
    "bilinear",  # Hugging Face's BEiT
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Methods:
    """How a family resizes arrays that depend on a grid; the defaults are those of vit_jax."""

    position: Method = "align_corners"
    relative: RelativeMethod = "geometric_cubic"
    decoder: Literal["grid", "flat"] = "grid"  # flat: patches as one row (Hugging Face's MAE)
    patch: Method = "bilinear"  # FlexiViT

    def with_position(self, method: str) -> "Methods":
        """Replaces the method for position tables, unless "". Raises ValueError if unknown."""
        if not method:
            return self
        check(method, Method)
        return dataclasses.replace(self, position=cast(Method, method))


# The code of DeiT, MAE and BEiT. Only BEiT has relative biases.
OF_DEIT = Methods(position="bicubic", relative="geometric_cubic", patch="bicubic_antialias")
OF_SWIN = Methods(relative="geometric_linear", patch="bicubic_antialias")  # timm's Swin


Kernel = Callable[[np.ndarray, float], np.ndarray]
Array = TypeVar("Array", np.ndarray, jax.Array)


def check(method: str, choices: object) -> None:
    """Raises ValueError unless the method is a value of `choices`, a `Literal`."""
    known = get_args(choices)
    if method not in known:
        raise ValueError(f"unknown interpolation {method!r}: choose one of {', '.join(known)}")


@functools.cache
def matrix(source: int, target: int, method: Method) -> np.ndarray:
    """Weights (target, source) that resize an axis; each row sums to 1.

    The "offset" methods change the values of an axis even if its size stays the same. Do not resize
    a grid at all if neither axis changes.
    """
    check(method, Method)
    offset = 0.1 if method.endswith("offset") else 0.0
    if source == target and not offset:
        return np.eye(source)
    corners = np.linspace(0, source - 1, target)
    if method == "align_corners":
        return _linear(np.arange(source), corners)
    if method == "bicubic_align_corners":
        return _taps(corners, source, _cubic, 2, -0.75)
    scale = source / (target + offset)
    where = (np.arange(target) + 0.5) * scale - 0.5  # pixel centres, in source coordinates
    if method == "keys_offset":
        weights = _cubic(np.arange(source) - where[:, None], -0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    kernel, reach, sharpness = (
        (_triangle, 1, 0.0)
        if method.startswith("bilinear")
        else (_cubic, 2, -0.5 if method.endswith("antialias") else -0.75)
    )
    if not method.endswith("antialias"):
        return _taps(where, source, kernel, reach, sharpness)
    stretch = max(scale, 1.0)  # antialiasing widens the kernel when downsampling
    weights = kernel((np.arange(source) - where[:, None]) / stretch, sharpness)
    return weights / weights.sum(axis=1, keepdims=True)


@functools.cache
def geometric_matrix(source: int, target: int, *, cubic: bool) -> np.ndarray:
    """Weights (target, source) for an axis of signed offsets; both sizes are odd, 0 is the middle.

    This is BEiT's resize. The source's offsets are stretched to a geometric progression that is
    dense around zero and ends where the target ends, then interpolated at the target's integer
    offsets. If only the other axis changes its size, this one is stretched too (smallest ratio).
    """
    offsets = np.arange(target) - target // 2.0
    ratio = _ratio(source // 2, target // 2)
    steps = np.cumsum(ratio ** np.arange(source // 2))
    known = np.concatenate([-steps[::-1], [0.0], steps])
    if not cubic or source < 4:
        return _linear(known, offsets)
    from scipy import interpolate  # takes half a second to import, and few models need it

    spline = interpolate.make_interp_spline(known, np.eye(source), k=3)  # not-a-knot
    return spline(offsets.clip(known[0], known[-1]))


def resize(table: Array, matrices: tuple[np.ndarray, np.ndarray], source: tuple[int, int]) -> Array:
    """Resizes a grid (..., rows * columns, D) in raster order by a matrix for each axis."""
    lead, width = table.shape[:-2], table.shape[-1]
    grid = table.reshape(*lead, *source, width)
    grid = contract("ih,jw,...hwd->...ijd", matrices, grid)
    return grid.reshape(*lead, matrices[0].shape[0] * matrices[1].shape[0], width)


def contract(formula: str, matrices: tuple[np.ndarray, np.ndarray], array: Array) -> Array:
    """Einsum of two matrices and an array, in float64 for NumPy and in float32 for JAX arrays."""
    library: Any = jnp if isinstance(array, jax.Array) else np
    dtype = np.float32 if library is jnp else np.float64
    exact = {"precision": "highest"} if library is jnp else {"optimize": True}
    first, second = (library.asarray(matrix, dtype) for matrix in matrices)
    return library.einsum(formula, first, second, array.astype(dtype), **exact).astype(array.dtype)


def _taps(
    where: np.ndarray, source: int, kernel: Kernel, reach: int, sharpness: float
) -> np.ndarray:
    """Weights (targets, source) of a kernel of fixed width at `where`; the border is repeated."""
    weights = np.zeros((len(where), source))
    first = np.floor(where).astype(int) - reach + 1
    for tap in range(2 * reach):
        index = first + tap
        value = kernel(index - where, sharpness)
        np.add.at(weights, (np.arange(len(where)), index.clip(0, source - 1)), value)
    return weights


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys 1981) of sharpness a."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _triangle(x: np.ndarray, _: float) -> np.ndarray:
    return np.clip(1 - np.abs(x), 0.0, None)


def _linear(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation between uneven points, constant beyond the ends."""
    columns = [np.interp(wanted, known, unit) for unit in np.eye(len(known))]
    return np.stack(columns, axis=1)


def _ratio(terms: int, end: int) -> float:
    """Ratio of the progression whose first `terms` sum to `end`, by BEiT's bisection."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**terms) / (1 - ratio) > end:
            high = ratio
        else:
            low = ratio
    return ratio
