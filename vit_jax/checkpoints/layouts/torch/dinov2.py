"""facebookresearch/dinov2: models with registers, chunked blocks or a gated MLP. Read only.

Registers, gated MLP and chunked blocks have other names than in timm, and the mask token has rank
2. Positions are those of a square grid and of the class token, not of registers.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, assumed_heads, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.torch import names, sizes
from vit_jax.models.interpolation import Method, Methods
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_SCALES = ("ls1.gamma", "ls2.gamma")
_CHUNK = re.compile(r"^blocks\.\d+\.(\d+\.)")
_NAMES = {"register_tokens": "reg_token", ".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}
_HOLDS = {"registers", "mlp", "layer_scale", "mask_token", "qkv_bias"}


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters with timm's names, and a mask token of rank 3."""
    del hints
    out: Arrays = {}
    for name, array in arrays.items():
        name = _CHUNK.sub(r"blocks.\1", name)
        for theirs, timms in _NAMES.items():
            name = name.replace(theirs, timms)
        out[name] = array[None] if name == "mask_token" and array.ndim == 2 else array
    return out


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    registers = arrays.get("reg_token")
    without = {name: array for name, array in arrays.items() if name != "reg_token"}
    hints = dataclasses.replace(hints, grid=hints.grid or names.square_grid(arrays))
    options = sizes.infer(without, hints, scale=_SCALES[0])
    number = 0 if registers is None else registers.shape[1]
    return dataclasses.replace(options, registers=number)


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model."""
    return names.entries(options, "dinov2", holds=_HOLDS, scales=_SCALES)


def resize(options: EncoderOptions) -> Methods:
    """Models with registers antialias; the others use a slightly larger scale (+0.1 patches)."""
    position: Method = "bicubic_antialias" if options.registers else "bicubic_offset"
    return Methods(position=position, patch="bicubic_antialias")


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As the original code evaluates: it crops 224 of 256 pixels."""
    crop_pct = 224 / 256
    return released(
        options.image_size,
        hints,
        crop_pct=crop_pct,
        interpolation="bicubic_antialias",
        **names.IMAGENET,
    )


LAYOUT = Layout(
    models=VITS,
    recognises=names.is_dinov2,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=resize,
    assumptions=assumed_heads,
    read_only=True,
)
