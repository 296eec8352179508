"""Models of the Flax classes in Hugging Face's transformers 4. Read only.

Their names are those of the PyTorch models except for the last part, and their arrays are laid out
as in Flax. Config.json is the same; only DINOv2 resizes its positions in another way.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hf import entries as entries_lib
from vit_jax.checkpoints.layouts.hf import layout as hf
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.table import Arrays
from vit_jax.models.interpolation import Methods
from vit_jax.models.options import EncoderOptions


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    if not any(name.endswith(".kernel") for name in arrays):
        return False
    return hf.recognises({_name(name): array for name, array in arrays.items()})


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    return hf.canonical({_name(k): _as_torch(k, array) for k, array in arrays.items()}, hints)


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return hf.notes({_name(name): array for name, array in arrays.items()})


def resize(options: EncoderOptions) -> Methods:
    if entries_lib.family(options) == "dinov2":
        return Methods(position="keys_offset", patch="bicubic_antialias")
    return hf.resize(options)


_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def _name(name: str) -> str:
    """The PyTorch name of a Flax array: only the last part differs."""
    layer, dot, leaf = name.rpartition(".")
    return layer + dot + _LEAVES.get(leaf, leaf) if dot else name


def _as_torch(name: str, array: np.ndarray) -> np.ndarray:
    """A kernel (in, out) or (height, width, in, out) as (out, in) or (out, in, height, width)."""
    if not name.endswith(".kernel"):
        return array
    axes: dict[int, Any] = {2: (1, 0), 4: (3, 2, 0, 1)}
    if array.ndim not in axes:
        raise ValueError(f"{name} has shape {array.shape}, but a kernel must have 2 or 4 axes")
    return array.transpose(axes[array.ndim])


LAYOUT = dataclasses.replace(
    hf.LAYOUT,
    recognises=recognises,
    canonical=canonical,
    notes=notes,
    resize=resize,
    read_only=True,
)
