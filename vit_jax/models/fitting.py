"""How the parameters of one model become those of another model of its kind.

`checkpoints/surgery.py` does it, with what a family says here. Parameters are flat dicts from a
path to a float32 array on the host.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.models import positions
from vit_jax.models.interpolation import Methods

Params = Mapping[str, np.ndarray]
# (array, options of the source, those of the target, methods): the array of the target.
Resize = Callable[[np.ndarray, Any, Any, Methods], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitting:
    """What a family says of its parameters. Families that share one exchange parameters.

    A path that is named here means all parameters below it too.
    """

    heads: tuple[str, ...] = ("head",)  # whose last axis is the classes
    # What one of two otherwise equal models may lack: dropped, or drawn anew.
    optional: tuple[str, ...] = ("head",)
    added: tuple[str, ...] = ()  # what the target may have more, but not less
    # How the array of a path is resized, None where it has one size in all models.
    resize: Callable[[str], Resize | None] = lambda path: None
    # Paths whose values mean something else in the target, though shapes may agree.
    replaced: Callable[[Any, Any], tuple[str, ...]] = lambda source, target: ()
    # The same model with the target's rows of tables, before anything is resized.
    realigned: Callable[[Params, Any, Any], Params] = lambda params, source, target: params


def under(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a path is one of `roots`, or below one."""
    return any(path == root or path.startswith(root + "/") for root in roots)


def resize_table(table: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """A 1D table on another grid; what stands before the patches is kept."""
    return positions.resize(table, source=source.grid, target=target.grid, method=methods.position)


def resample_patch(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """A patch embedding (h, w, C, D) for patches of another size."""
    return positions.resample_patch(kernel, target.patch_size, method=methods.patch)


def embed_images(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    """As `resample_patch`, of images with another number of channels too."""
    kernel = with_channels(kernel, target.channels)
    return resample_patch(kernel, source, target, methods)


def fit_channels(kernel: np.ndarray, source: Any, target: Any, methods: Methods) -> np.ndarray:
    return with_channels(kernel, target.channels)


def with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A first kernel (h, w, C, D) for images of so many channels, as timm's `adapt_input_conv`.

    One channel takes the sum of all; more take the kernel's in turn, scaled by C / channels, so
    that an image whose channels are all alike gives the same features.
    """
    given = kernel.shape[2]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % given] * np.float32(given / channels)


def exactly(rows: np.ndarray, count: int) -> np.ndarray:
    """Some rows (..., n, D) cut or filled with zeros to `count`."""
    rows = rows[..., :count, :]
    pad = [(0, 0)] * (rows.ndim - 2) + [(0, count - rows.shape[-2]), (0, 0)]
    return np.pad(rows, pad)
