"""Released layouts: one table a family, read and written with the same entries."""

import dataclasses
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import (
    beit,
    big_vision,
    bit_npz,
    deit,
    dinov2,
    foreign,
    hf,
    hf_bit,
    hf_swin,
    mae,
    moco,
    table,
    timm,
    timm_bit,
    timm_swin,
    torchvision,
    vit_jax,
)
from vit_jax.checkpoints.layouts.hf import flax as hf_flax
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing

__all__ = ["LAYOUTS", "as_written", "assumptions", "find", "methods", "name", "notes",  "table",
           "writer"]  # fmt: skip

# The tables of each layout, one for every model that it can hold. A table is a module with
# `recognises`, `canonical`, `infer`, `entries`, `preprocessing`, `RESIZE`, and `MODELS`, the types
# of its options; `vit_jax` is the shortest. `READ_ONLY` ones are not written.
LAYOUTS: dict[str, tuple[ModuleType, ...]] = {
    "vit_jax": (vit_jax,),
    "big_vision": (big_vision, bit_npz),
    "timm": (timm, timm_bit, timm_swin),
    "hf": (hf_bit, hf_swin, hf, hf_flax),
    "mae": (mae,),
    "deit": (deit,),
    "beit": (beit,),
    "torchvision": (torchvision,),
    "dinov2": (dinov2,),
    "moco": (moco,),
}


def find(arrays: Mapping[str, np.ndarray], name: str, *, path: str, key: str = "") -> ModuleType:
    """The table that recognises the keys, of the layout called `name` unless that is empty.

    timm, DeiT and MAE share most keys: what tells them apart is whether a .pth keeps its arrays
    under a `key`, as a table's `TORCH_KEY` says. Raises ValueError where none does.
    """
    foreign.refuse(arrays, path=path)
    candidates = _named(name) if name else [t for tables in LAYOUTS.values() for t in tables]
    found = [candidate for candidate in candidates if candidate.recognises(arrays)]
    keyed = key in ("model", "model_ema", "module")
    if found:
        return min(found, key=lambda table: hasattr(table, "TORCH_KEY") != keyed)
    if name:
        return candidates[0]  # to say what is missing
    shown = ", ".join(sorted(arrays)[:4])
    raise ValueError(f"{path}: no known layout holds keys such as {shown}")


def writer(options: zoo.Options, name: str) -> ModuleType:
    """The table to write a model with. Raises ValueError where the layout has none."""
    for candidate in _named(name):
        if type(options) in candidate.MODELS and not getattr(candidate, "READ_ONLY", False):
            return candidate
    raise ValueError(f"a {options.kind} cannot be written in the {name} layout")


def name(found: ModuleType) -> str:
    """The layout that a table belongs to."""
    return next(name for name, tables in LAYOUTS.items() if found in tables)


def as_written(found: ModuleType, options: zoo.Options) -> Any:
    """The model that a table's readers make of a file: they fix what the file does not tell."""
    if hasattr(found, "numerics"):
        return dataclasses.replace(options, **found.numerics(options))
    return dataclasses.replace(options, **getattr(found, "NUMERICS", {}))


def methods(found: ModuleType, options: zoo.Options) -> Methods:
    """How a model's family resizes: its table's `RESIZE`, unless models of it differ."""
    return found.methods(options) if hasattr(found, "methods") else found.RESIZE


def notes(found: ModuleType, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """In words, which arrays of a file a table leaves out, where it leaves out any."""
    return found.notes(arrays) if hasattr(found, "notes") else ()


def assumptions(
    found: ModuleType, options: zoo.Options, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    """In words, what was taken for granted of a model, where a table's files leave that open."""
    if not hasattr(found, "assumptions"):
        return ()
    return found.assumptions(options, preprocessing, hints)


def _named(name: str) -> tuple[ModuleType, ...]:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
