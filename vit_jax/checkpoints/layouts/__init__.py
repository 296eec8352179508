"""Released layouts: one table a family, read and written with the same entries."""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from vit_jax.checkpoints.layouts import big_vision, bit_npz, table, vit_jax
from vit_jax.models import zoo

__all__ = ["LAYOUTS", "find", "table", "writer"]

# The tables of each layout, one for every model that it can hold. A table is a module with
# `recognises`, `canonical`, `infer`, `entries`, `preprocessing`, `RESIZE`, and `MODEL`, the type
# of its options; `vit_jax` is the shortest.
LAYOUTS: dict[str, tuple[ModuleType, ...]] = {
    "vit_jax": (vit_jax,),
    "big_vision": (big_vision, bit_npz),
}


def find(arrays: Mapping[str, np.ndarray], name: str, *, path: str) -> ModuleType:
    """The table that recognises the keys, of the layout called `name` unless that is empty."""
    candidates = _named(name) if name else [t for tables in LAYOUTS.values() for t in tables]
    for candidate in candidates:
        if candidate.recognises(arrays):
            return candidate
    if name:
        return candidates[0]  # to say what is missing
    shown = ", ".join(sorted(arrays)[:4])
    raise ValueError(f"{path}: no known layout holds keys such as {shown}")


def writer(options: zoo.Options, name: str) -> ModuleType:
    """The table to write a model with. Raises ValueError where the layout has none."""
    for candidate in _named(name):
        if candidate.MODEL is type(options):
            return candidate
    raise ValueError(f"the {name} layout holds no {type(options).__name__.removesuffix('Options')}")


def _named(name: str) -> tuple[ModuleType, ...]:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
