"""Released layouts: one table a family, read and written with the same entries."""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from vit_jax.checkpoints.layouts import big_vision, table, vit_jax

__all__ = ["LAYOUTS", "find", "table"]

# A layout is a module with `recognises`, `canonical`, `infer`, `entries`, `preprocessing` and
# `RESIZE`; `vit_jax` is the shortest.
LAYOUTS: dict[str, ModuleType] = {"vit_jax": vit_jax, "big_vision": big_vision}


def find(arrays: Mapping[str, np.ndarray], name: str, *, path: str) -> ModuleType:
    """The layout called `name`, or the one that recognises the keys where `name` is empty."""
    if name:
        if name not in LAYOUTS:
            raise ValueError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
        return LAYOUTS[name]
    for layout in LAYOUTS.values():
        if layout.recognises(arrays):
            return layout
    shown = ", ".join(sorted(arrays)[:4])
    raise ValueError(f"{path}: no known layout holds keys such as {shown}")
