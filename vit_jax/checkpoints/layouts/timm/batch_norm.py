"""Convolutions with batch norm in files of PyTorch, shared by RegNet and ResNet."""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.resnet import hwio_to_oihw, oihw_to_hwio
from vit_jax.checkpoints.layouts.table import Arrays, Entry

_NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def conv(path: str, kernel: str, norm: str) -> list[Entry]:
    """The entries of a `ConvNorm` whose arrays in the file are named by its two layers."""
    entry = Entry(f"{path}/kernel", (f"{kernel}.weight",), oihw_to_hwio, hwio_to_oihw)
    return [entry, *(Entry(f"{path}/norm/{a}", (f"{norm}.{b}",)) for a, b in _NORM.items())]


def without_counts(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays without the numbers of batches that the running averages were computed from."""
    return {k: v for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
