"""Interpolation as exact matrices: one axis from `source` to `target` points, in float64 numpy.

Every family resized its tables with another library; each method here gives that library's
numbers. A grid is resized by one matrix an axis, so any grid goes to any grid. The matrices depend
on sizes alone, so what they are applied to may be an array of JAX, under `jit` and `grad` too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy import interpolate

Method = Literal[
    "align_corners",  # linear, first and last points kept: vit_jax, big_vision (scipy's zoom)
    "bicubic",  # no antialias: DeiT, MAE, BEiT, Hugging Face
    "bicubic_antialias",  # timm
    "bilinear",  # no antialias: timm's reader of .npz; FlexiViT (tf.image.resize)
    "bilinear_antialias",
    "bicubic_align_corners",  # first and last points kept: torchvision
    "bicubic_offset",  # a tenth of a point larger than it is: facebookresearch's DINOv2
    "keys_offset",  # the same of JAX's bicubic: DINOv2 in Flax
    "sincos2d",  # fixed sines computed anew, another table as "bicubic": MoCo v3
]
RelativeMethod = Literal[
    "geometric_cubic",  # BEiT (scipy's interp2d)
    "geometric_linear",  # timm
    "bicubic",  # Swin
    "bilinear",  # BEiT as Hugging Face has it
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Methods:
    """How a family resizes what depends on a grid; the defaults are those of vit_jax."""

    position: Method = "align_corners"
    relative: RelativeMethod = "geometric_cubic"
    decoder: Literal["grid", "flat"] = "grid"  # flat: patches as one row (Hugging Face's MAE)
    patch: Method = "bilinear"  # FlexiViT

    def with_position(self, method: str) -> "Methods":
        """With another method for tables of positions, unless it is "". Raises ValueError."""
        if not method:
            return self
        check(method, Method)
        return dataclasses.replace(self, position=cast(Method, method))


Kernel = Callable[[np.ndarray, float], np.ndarray]
Array = TypeVar("Array", np.ndarray, jax.Array)


def check(method: str, choices: object) -> None:
    """Raises ValueError unless the method is one of a `Literal`'s."""
    known = get_args(choices)
    if method not in known:
        raise ValueError(f"unknown interpolation {method!r}: choose one of {', '.join(known)}")


@functools.cache
def matrix(source: int, target: int, method: Method) -> np.ndarray:
    """Weights (target, source) of resizing an axis; rows sum to 1.

    With an "offset" an axis of unchanged size is resized too: where the whole grid stays, nothing
    is to be resized.
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
    where = (np.arange(target) + 0.5) * scale - 0.5  # centres of pixels, on the source's axis
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
    stretch = max(scale, 1.0)  # antialiasing widens the kernel where points get fewer
    distance = (np.arange(source) - where[:, None]) / stretch
    # The library sums only over points whose centre, rounded, lies within the kernel's reach.
    low = np.floor(where + 0.5 - reach * stretch + 0.5).clip(0)
    high = np.floor(where + 0.5 + reach * stretch + 0.5).clip(max=source)
    index = np.arange(source)
    inside = (index >= low[:, None]) & (index < high[:, None])
    weights = np.where(inside, kernel(distance, sharpness), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


@functools.cache
def geometric_matrix(source: int, target: int, *, cubic: bool) -> np.ndarray:
    """Weights (target, source) of an axis of signed offsets, both sizes odd, zero in the middle.

    BEiT's resize: the source's offsets are stretched to a geometric progression that is dense
    around zero and ends where the target ends, then interpolated at the target's whole offsets.
    An axis of unchanged size is stretched too, by the smallest ratio, where the other changes.
    """
    offsets = np.arange(target) - target // 2.0
    ratio = _ratio(source // 2, target // 2)
    steps = np.cumsum(ratio ** np.arange(source // 2))
    known = np.concatenate([-steps[::-1], [0.0], steps])
    if not cubic or source < 4:
        return _linear(known, offsets)
    spline = interpolate.make_interp_spline(known, np.eye(source), k=3)  # not-a-knot
    return spline(offsets.clip(known[0], known[-1]))


def resize(table: Array, matrices: tuple[np.ndarray, np.ndarray], source: tuple[int, int]) -> Array:
    """(..., source points in raster order, D) to the matrices' target; computed as `contract`."""
    lead, width = table.shape[:-2], table.shape[-1]
    grid = table.reshape(*lead, *source, width)
    grid = contract("ih,jw,...hwd->...ijd", matrices, grid)
    return grid.reshape(*lead, matrices[0].shape[0] * matrices[1].shape[0], width)


def contract(formula: str, matrices: tuple[np.ndarray, np.ndarray], array: Array) -> Array:
    """The einsum of two matrices and an array: in float64 of NumPy's, in float32 of JAX's."""
    library: Any = jnp if isinstance(array, jax.Array) else np
    dtype = np.float32 if library is jnp else np.float64
    exact = {"precision": "highest"} if library is jnp else {"optimize": True}
    first, second = (library.asarray(matrix, dtype) for matrix in matrices)
    return library.einsum(formula, first, second, array.astype(dtype), **exact).astype(array.dtype)


def _taps(
    where: np.ndarray, source: int, kernel: Kernel, reach: int, sharpness: float
) -> np.ndarray:
    """A kernel of fixed width at each place; points beyond the border repeat it."""
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
    """Weights of linear interpolation between irregular points, constant beyond the ends."""
    columns = [np.interp(wanted, known, unit) for unit in np.eye(len(known))]
    return np.stack(columns, axis=1)


def _ratio(terms: int, end: int) -> float:
    """Ratio of the progression whose first `terms` sum to `end`, by the original's bisection."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**terms) / (1 - ratio) > end:
            high = ratio
        else:
            low = ratio
    return ratio
