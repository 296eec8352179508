"""How the parameters of a model are changed to fit another model of the same family.

Each family describes this with a `Fitting`, and `checkpoints/surgery.py` applies it. Parameters are
flat dicts from a path to a float32 array on the host.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.models import positions
from vit_jax.models.interpolation import Methods

Params = Mapping[str, np.ndarray]
# (array, options of the source, options of the target, methods) -> the array for the target.
Resize = Callable[[np.ndarray, Any, Any, Methods], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """How a family fits its parameters. Families with the same `Fitting` exchange parameters.

    A path that is named here stands for all parameters below it too.
    """

    heads: tuple[str, ...] = ("head",)  # their last axis is the classes
    # Parts that only one of the two models may have: dropped, or freshly initialised.
    optional: tuple[str, ...] = ("head",)
    added: tuple[str, ...] = ()  # parts that the target may add but not drop
    # The function that resizes the array at a path; None if its size never changes.
    resize: Callable[[str], Resize | None] = lambda path: None
    # Paths whose values mean something else in the target, even if the shapes agree.
    replaced: Callable[[Any, Any], tuple[str, ...]] = lambda source, target: ()
    # Gives tables the rows that the target needs, before anything is resized.
    realigned: Callable[[Params, Any, Any], Params] = lambda params, source, target: params


def under(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a path is one of `roots` or below one of them."""
    return any(path == root or path.startswith(root + "/") for root in roots)


def resize_table(table: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """Resizes a 1D table to the target's grid; the rows before the patches are kept."""
    return positions.resize(table, source=source.grid, target=target.grid, method=methods.position)


def resample_patch(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """Resizes a patch embedding (h, w, C, D) to the target's patch size."""
    return positions.resample_patch(kernel, target.patch_size, method=methods.patch)


def embed_images(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """Like `resample_patch`, but also fits another number of image channels."""
    kernel = with_channels(kernel, target.channels)
    return resample_patch(kernel, source, target, methods)


def fit_channels(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    return with_channels(kernel, target.channels)


def with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Fits the first kernel (h, w, C, D) to images of `channels`, like timm's `adapt_input_conv`.

    One channel gets the sum over C. More channels get the kernel's channels in turn, scaled by
    C / channels, so that an image whose channels are equal gives the same features.
    """
    given = kernel.shape[2]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % given] * np.float32(given / channels)


def cut_or_pad(rows: np.ndarray, count: int) -> np.ndarray:
    """Cuts rows (..., n, D) to `count` rows, or appends rows of zeros."""
    rows = rows[..., :count, :]
    pad = [(0, 0)] * (rows.ndim - 2) + [(0, count - rows.shape[-2]), (0, 0)]
    return np.pad(rows, pad)
