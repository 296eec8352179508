"""timm's Swin, and Microsoft's original files, which are only read.

The originals merge patches at the end of a stage, timm at the start of the next.
"""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import swin, torch
from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, refuse_pools, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config, origin
from vit_jax.models.interpolation import Methods
from vit_jax.models.positions import Grid
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.swin import SwinOptions

_NUMERICS = {"padding": "after_shift", "activation": "gelu_erf", "norm_eps": 1e-5}


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
    bias="attn.qkv.bias",
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
    """The model of canonical arrays; what config.json tells is taken from it.

    Raises ValueError where they cannot be one, or the config asks for what is not known here.
    """
    refuse_pools(hints)
    shapes = {name: array.shape for name, array in arrays.items()}
    options = swin.infer(
        shapes,
        _SPELLING,
        hints,
        padding="after_shift",
        wanted=_wanted(hints, len(swin.depths(shapes, _SPELLING))),
    )
    covered = zip(options.stage_windows, options.stage_grids(options.image_size), strict=True)
    if hints.config.get("model_args", {}).get("always_partition") and any(
        side <= window for w, g in covered for window, side in zip(w, g, strict=True)
    ):
        raise ValueError("always_partition of a window that covers the features is not supported")
    return options


def _wanted(hints: Hints, stages: int) -> tuple[Grid, ...]:
    """The windows that config.json tells, of each stage: by themselves, or in the model's name."""
    named = re.search(r"_window(\d+)", str(hints.config.get("architecture", "")))
    told = hints.config.get("model_args", {}).get("window_size", named and int(named[1]))
    if not isinstance(told, list):
        return ((told, told),) * stages if told else ()
    if len(told) == 2 and all(isinstance(side, int) for side in told):  # (height, width)
        return ((told[0], told[1]),) * stages
    pairs = [side if isinstance(side, list) else [side, side] for side in told]
    return tuple((rows, columns) for rows, columns in pairs)


def preprocessing(options: SwinOptions, hints: Hints) -> Preprocessing:
    crop_pct = 0.9 if max(options.image_size) < 384 else 1.0
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = "bicubic_antialias"
    return released(
        options.image_size,
        hints,
        crop_pct=crop_pct,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )


def entries(options: SwinOptions) -> list[Entry]:
    """The table of a model."""
    return swin.entries(options, _SPELLING)


def _of_timm(name: str) -> str:
    name = re.sub(r"^head\.(?=weight$|bias$)", "head.fc.", name)
    return re.sub(
        r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name
    )


LAYOUT = Layout(
    models=(SwinOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: Methods(relative="geometric_linear", patch="bicubic_antialias"),
    numerics=lambda options: _NUMERICS,
    assumptions=assumed_pixels,
    beside=config.of_swin,
    original=origin.swin,
    formats=(".safetensors", ".pth"),
    folders="also",
)
