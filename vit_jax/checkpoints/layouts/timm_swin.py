"""timm's Swin, and Microsoft's original files, which are only read.

The originals merge patches at the end of a stage, timm at the start of the next.
"""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import swin, torch
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.swin import SwinOptions

MODEL = SwinOptions
NUMERICS = {"padding": "after_shift", "gelu": "erf", "norm_eps": 1e-5}
FORMATS = (".safetensors", ".pth")
RESIZE = Methods(relative="geometric_linear", patch="bicubic_antialias")


def _qkv(path: str, block: str, *, heads: int, bias: bool) -> list[Entry]:
    name = f"{block}attn.qkv"
    return torch.fused_qkv(path, f"{name}.weight", f"{name}.bias" if bias else "", heads=heads)


_SPELLING = swin.Spelling(
    embedding="patch_embed.proj",
    embedding_norm="patch_embed.norm",
    block="layers.{s}.blocks.{i}.",
    norm1="norm1",
    norm2="norm2",
    table="attn.relative_position_bias_table",
    out="attn.proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
    merge="layers.{s}.downsample",
    merge_from=0,
    norm="norm",
    head="head.fc",
    qkv=_qkv,
)
_BUFFERS = ("relative_position_index", "attn_mask", "relative_coords_table")


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Swin's alone: its second version has no tables but small networks for them."""
    first = _SPELLING.block.format(s=0, i=0)
    needed = (f"{_SPELLING.embedding}.weight", first + _SPELLING.table)
    return all(name in arrays for name in needed)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays by timm's names, without buffers."""
    del hints
    original = "layers.0.downsample.reduction.weight" in arrays
    kept = {k: v for k, v in arrays.items() if not k.endswith(_BUFFERS)}
    return {_of_timm(k) if original else k: v for k, v in kept.items()}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> SwinOptions:
    shapes = {name: array.shape for name, array in arrays.items()}
    return swin.infer(shapes, _SPELLING, hints, bias="attn.qkv.bias", padding="after_shift")


def preprocessing(options: SwinOptions, hints: Hints) -> Preprocessing:
    crop = 0.9 if max(options.image_size) < 384 else 1.0
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    kernel = "bicubic_antialias"
    return released(options.image_size, hints, crop=crop, kernel=kernel, mean=mean, std=std)


def entries(options: SwinOptions) -> list[Entry]:
    """The table of a model."""
    return swin.entries(options, _SPELLING)


def _of_timm(name: str) -> str:
    name = re.sub(r"^head\.(?=weight$|bias$)", "head.fc.", name)
    return re.sub(
        r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name
    )
