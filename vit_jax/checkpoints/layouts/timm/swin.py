"""timm's Swin. Microsoft's original files can be read too.

The original files have the merging of patches at the end of a stage, timm's at the start of the
next one.
"""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import swin, torch
from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, refuse_arguments, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config, origin
from vit_jax.models import interpolation
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
    """Excludes Swin V2, which has small networks in place of tables of relative biases."""
    first = _SPELLING.block.format(s=0, i=0)
    needed = (f"{_SPELLING.embedding}.weight", first + _SPELLING.table)
    return all(name in arrays for name in needed)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays with timm's names, without buffers."""
    del hints
    original = "layers.0.downsample.reduction.weight" in arrays
    kept = {k: v for k, v in arrays.items() if not k.endswith(_BUFFERS)}
    return {_timm_name(k) if original else k: v for k, v in kept.items()}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> SwinOptions:
    """The model of canonical arrays and config.json.

    Raises ValueError where they cannot be a Swin, or config.json has an unsupported option.
    """
    refuse_arguments(hints)
    shapes = {name: array.shape for name, array in arrays.items()}
    options = swin.infer(
        shapes,
        _SPELLING,
        hints,
        padding="after_shift",
        wanted=_wanted(hints, len(swin.depths(shapes, _SPELLING))),
    )
    covered = zip(options.stage_windows, options.stage_grids(options.image_size), strict=True)
    if hints.model_args.get("always_partition") and any(
        side <= window for w, g in covered for window, side in zip(w, g, strict=True)
    ):
        raise ValueError("always_partition with a window that covers all features is not supported")
    return options


def _wanted(hints: Hints, stages: int) -> tuple[Grid, ...]:
    """The window of each stage, from the arguments or the architecture's name in config.json."""
    named = re.search(r"_window(\d+)", str(hints.config.get("architecture", "")))
    sizes = hints.model_args.get("window_size", named and int(named[1]))
    if not isinstance(sizes, list):
        return ((sizes, sizes),) * stages if sizes else ()
    if len(sizes) == 2 and all(isinstance(side, int) for side in sizes):  # (height, width)
        return ((sizes[0], sizes[1]),) * stages
    pairs = [side if isinstance(side, list) else [side, side] for side in sizes]
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
    """The table of entries of a model."""
    return swin.entries(options, _SPELLING)


def _timm_name(name: str) -> str:
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
    resize=lambda options: interpolation.OF_SWIN,
    numerics=lambda options: _NUMERICS,
    assumptions=assumed_pixels,
    beside=config.of_swin,
    original=origin.swin,
    formats=(".safetensors", ".pth"),
    folders="also",
)
