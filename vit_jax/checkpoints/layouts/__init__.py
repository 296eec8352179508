"""Layouts of released files: for each family, a table of entries to read and write its files."""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import foreign, table
from vit_jax.checkpoints.layouts.hf import bit as hf_bit
from vit_jax.checkpoints.layouts.hf import flax as hf_flax
from vit_jax.checkpoints.layouts.hf import layout as hf_vit
from vit_jax.checkpoints.layouts.hf import swin as hf_swin
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.npz import big_vision, vit_jax
from vit_jax.checkpoints.layouts.npz import bit as bit_npz
from vit_jax.checkpoints.layouts.timm import bit as timm_bit
from vit_jax.checkpoints.layouts.timm import regnet as timm_regnet
from vit_jax.checkpoints.layouts.timm import resnet_v1 as timm_resnet
from vit_jax.checkpoints.layouts.timm import swin as timm_swin
from vit_jax.checkpoints.layouts.timm import vit as timm_vit
from vit_jax.checkpoints.layouts.torch import beit, dalle, deit, dinov2, mae, moco, torchvision
from vit_jax.models import zoo

__all__ = ["LAYOUTS", "Layout", "find", "name", "table", "writer"]

# Name for --layout -> its layouts, one per kind of model. Files are recognised in this order.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "vit_jax": (vit_jax.LAYOUT,),
    "big_vision": (big_vision.LAYOUT, bit_npz.LAYOUT),
    "timm": (
        timm_vit.LAYOUT,
        timm_bit.LAYOUT,
        timm_swin.LAYOUT,
        timm_regnet.LAYOUT,
        timm_resnet.LAYOUT,
    ),
    "hf": (hf_bit.LAYOUT, hf_swin.LAYOUT, hf_vit.LAYOUT, hf_flax.LAYOUT),
    "mae": (mae.LAYOUT,),
    "deit": (deit.LAYOUT,),
    "beit": (beit.LAYOUT,),
    "torchvision": (torchvision.LAYOUT,),
    "dinov2": (dinov2.LAYOUT,),
    "moco": (moco.LAYOUT,),
    "dalle": (dalle.LAYOUT,),
}


def find(arrays: Mapping[str, np.ndarray], name: str, *, path: str, key: str = "") -> Layout:
    """The layout that recognises the names of `arrays`, among those called `name` if given.

    timm, DeiT and MAE share most names. They are distinguished by whether a .pth has its arrays
    under a `key` (see `Layout.torch_key`). Raises ValueError where no layout recognises the names.
    """
    foreign.refuse(arrays, path=path)
    candidates = _named(name) if name else [t for tables in LAYOUTS.values() for t in tables]
    found = [candidate for candidate in candidates if candidate.recognises(arrays)]
    keyed = key in ("model", "model_ema", "module")
    if found:
        return min(found, key=lambda layout: bool(layout.torch_key) != keyed)
    if name:
        return candidates[0]  # its `infer` raises an error that names the missing arrays
    shown = ", ".join(sorted(arrays)[:4])
    raise ValueError(f"{path}: no known layout has arrays named {shown}")


def writer(options: zoo.Options, name: str) -> Layout:
    """The layout called `name` that can write the model. Raises ValueError where there is none."""
    for candidate in _named(name):
        if type(options) in candidate.models and not candidate.read_only:
            return candidate
    raise ValueError(f"a {options.kind} cannot be written in the {name} layout")


def name(found: Layout) -> str:
    """The name of a layout in `LAYOUTS`."""
    return next(name for name, layouts in LAYOUTS.items() if any(found is one for one in layouts))


def _named(name: str) -> tuple[Layout, ...]:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}: choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]
