"""Released layouts: one table a family, read and written with the same entries."""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from vit_jax.checkpoints.layouts import big_vision, bit_npz, hf, hf_bit, table, timm_bit, vit_jax
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods

__all__ = ["LAYOUTS", "find", "methods", "table", "writer"]

# The tables of each layout, one for every model that it can hold. A table is a module with
# `recognises`, `canonical`, `infer`, `entries`, `preprocessing`, `RESIZE`, and `MODEL`, the type
# of its options; `vit_jax` is the shortest. `READ_ONLY` ones are not written.
LAYOUTS: dict[str, tuple[ModuleType, ...]] = {
    "vit_jax": (vit_jax,),
    "big_vision": (big_vision, bit_npz),
    "timm": (timm_bit,),
    "hf": (hf, hf_bit),
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
        if candidate.MODEL is type(options) and not getattr(candidate, "READ_ONLY", False):
            return candidate
    kind = type(options).__name__.removesuffix("Options")
    raise ValueError(f"a {kind} cannot be written in the {name} layout")


def methods(found: ModuleType, options: zoo.Options) -> Methods:
    """How a model's family resizes: its table's `RESIZE`, unless models of it differ."""
    return found.methods(options) if hasattr(found, "methods") else found.RESIZE


def _named(name: str) -> tuple[ModuleType, ...]:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
