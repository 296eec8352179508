"""Infers the options of a model with timm's names from names and shapes, completed by hints."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import grids
from vit_jax.checkpoints.layouts.hints import Hints, decoder_heads, heads, nominal_size
from vit_jax.checkpoints.layouts.resnet import infer_stem
from vit_jax.checkpoints.layouts.torch import outside
from vit_jax.checkpoints.layouts.torch.names import (
    ROOT_ALONE,
    SHARED_TABLE,
    SPELLING,
    STEM,
    TABLE,
    is_beit,
)
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.positions import Grid
from vit_jax.models.resnet import StemOptions

Shapes = Mapping[str, Sequence[int]]

# Width of released models -> heads; 1152 is So400m.
_HEADS = {64 * n: n for n in (3, 4, 5, 6, 8, 10, 12, 13, 14, 16)}
_HEADS |= {1152: 16, 1280: 16, 1408: 16, 1664: 16}
# Two giants have width 1536: DINOv2's has a gated MLP, SigLIP 2's has no class token.
_GATED_HEADS, _SIGLIP_HEADS = _HEADS | {1536: 24}, _HEADS | {1536: 16}
# I-JEPA's B/16 has 16 heads, but the same arrays as models with 12 heads.
_GAP_BASE = r"^vit_base_patch16_gap"


def infer(arrays: Mapping[str, np.ndarray], hints: Hints, *, scale: str) -> EncoderOptions:
    """The model of canonical arrays; `scale` is the layout's name of the first LayerScale.

    Raises ValueError where the arrays cannot be a model of this family.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    outside.refuse(shapes, hints.arguments)
    qkv, fc1, fc2 = (f"blocks.0.{n}.weight" for n in ("attn.qkv", "mlp.fc1", "mlp.fc2"))
    needed = {"patch_embed.proj.weight": 4, qkv: 2, fc1: 2, fc2: 2}
    merged = dataclasses.replace(hints, config=hints.arguments)
    relative = SHARED_TABLE in shapes or f"blocks.0.attn.{TABLE}" in shapes
    without = hints.position == "none" or merged.config.get("pos_embed") in ("", "none")
    if "pos_embed" in shapes or not (relative or without):
        needed["pos_embed"] = 3
    if "norm_pre.weight" not in shapes:  # only CLIP's patch embedding has no bias
        needed["patch_embed.proj.bias"] = 1
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(
            f"not a ViT with timm's names: missing or wrong-rank arrays: {', '.join(wrong)}"
        )
    width, channels, height, side = shapes["patch_embed.proj.weight"]
    stem = _infer_stem(shapes)
    stride = stem.stride if stem else 1
    tokens = {
        "class_token": "cls_token" in shapes,
        "distillation": "dist_token" in shapes,
        "registers": shapes.get("reg_token", (0, 0, 0))[1],
    }
    grid, prefix_rows = _grid(
        shapes,
        hints,
        pixels=(stride * height, stride * side),
        prefix=sum(tokens.values()),
        bare=f"blocks.0.{scale}" in shapes,  # DeiT III, and DINOv2 with registers
    )
    fields: dict[str, Any] = {
        "image_size": (grid[0] * stride * height, grid[1] * stride * side),
        "patch_size": (height, side),
        "channels": shapes[_root(shapes)][1] if stem else channels,
        "width": width,
        "depth": _depth(shapes, "blocks"),
        "mlp_dim": shapes[fc2][1],
        "mlp": "swiglu" if shapes[fc1][0] == 2 * shapes[fc2][1] else "plain",
        "num_heads": _infer_heads(shapes, merged, width=width),
        "num_classes": shapes.get("head.weight", (0,))[0],
        "stem": stem,
        "class_position": prefix_rows > 0 or not (tokens["class_token"] and "pos_embed" in shapes),
        "register_position": prefix_rows > 0 and tokens["registers"] > 0,
        "position": "learned_1d" if "pos_embed" in shapes else "none",
        "activation": "gelu_erf",
        "norm_eps": 1e-5 if "norm_pre.weight" in shapes else 1e-6,  # CLIP has the former
        "input_norm": "norm_pre.weight" in shapes,
        "patch_bias": "patch_embed.proj.bias" in shapes,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shapes,
        "layer_scale": 1e-5 if f"blocks.0.{scale}" in shapes else 0.0,
        "representation_size": shapes.get("pre_logits.fc.weight", (0,))[0],
    }
    fields |= tokens | _infer_pool(shapes, str(merged.config.get("global_pool", "")))
    return zoo.of_parts(**fields | _infer_attention(shapes) | _infer_pretraining(shapes, merged))


def _infer_heads(shapes: Shapes, hints: Hints, *, width: int) -> int:
    """The number of heads: from the shape of some parts, from the hints, or by the width.

    Raises ValueError where it is unknown or contradicts the hints.
    """
    tables = (shapes.get(n) for n in (SHARED_TABLE, f"blocks.0.attn.{TABLE}"))
    number = next((table[-1] for table in tables if table), 0)
    if norm := shapes.get("blocks.0.attn.q_norm.weight"):
        number = width // norm[0]
    if number and hints.num_heads not in (0, number):
        raise ValueError(f"num_heads is {hints.num_heads}, the checkpoint has {number} heads")
    gated = shapes["blocks.0.mlp.fc1.weight"][0] == 2 * shapes["blocks.0.mlp.fc2.weight"][1]
    known = _GATED_HEADS if gated else _HEADS if "cls_token" in shapes else _SIGLIP_HEADS
    if re.search(_GAP_BASE, str(hints.config.get("architecture", ""))):
        known = known | {768: 16}
    return number or heads(hints, known, width=width)


def _infer_pool(shapes: Shapes, global_pool: str) -> dict[str, Any]:
    """The kind of pool, and whether the last norm comes before or after it (by its name)."""
    pooled = "fc_norm.weight" in shapes
    if "attn_pool.latent" in shapes:
        return {"pool": "map"}
    usual = "avg" if pooled or "cls_token" not in shapes else "token"
    pool = global_pool if global_pool in ("avg", "token") else usual
    return {
        "pool": "gap" if pool == "avg" else "token",
        "norm_at": "pooled" if pooled else "tokens",
    }


def _infer_attention(shapes: Shapes) -> dict[str, Any]:
    own, shared = f"blocks.0.attn.{TABLE}" in shapes, SHARED_TABLE in shapes
    whole, apart = (f"blocks.0.attn.{n}" in shapes for n in ("qkv.bias", "q_bias"))
    return {
        "relative_bias": "per_block" if own else "shared" if shared else "none",
        "qkv_bias": whole or apart,
        "key_bias": not is_beit(shapes) or whole,
    }


def _infer_pretraining(shapes: Shapes, hints: Hints) -> dict[str, Any]:
    """Options of parts for pretraining: MAE's decoder, or BEiT's mask token and head."""
    if "decoder_embed.weight" not in shapes:
        classes = shapes.get("lm_head.weight", (0,))[0]
        return {"mask_token": classes > 0 or "mask_token" in shapes, "mim_classes": classes}
    width = shapes["decoder_embed.weight"][0]
    number = decoder_heads(hints, width=width)
    decoder = DecoderOptions(
        width=width,
        depth=_depth(shapes, "decoder_blocks"),
        mlp_dim=shapes.get("decoder_blocks.0.mlp.fc1.weight", (4 * width,))[0],
        num_heads=number,
    )
    return {"decoder": decoder, "fixed_position": True}


def _infer_stem(shapes: Shapes) -> StemOptions | None:
    if ROOT_ALONE.root in shapes:
        return dataclasses.replace(STEM, root_width=shapes[ROOT_ALONE.root][0])
    if SPELLING.root in shapes:
        return infer_stem(shapes, SPELLING, numerics=STEM)
    return None


def _root(shapes: Shapes) -> str:
    return SPELLING.root if SPELLING.root in shapes else ROOT_ALONE.root


def _depth(shapes: Shapes, name: str) -> int:
    found = [int(m[1]) for key in shapes if (m := re.match(rf"{name}\.(\d+)\.", key))]
    return 1 + max(found, default=0)


def _grid(
    shapes: Shapes, hints: Hints, *, pixels: tuple[int, int], prefix: int, bare: bool
) -> tuple[Grid, int]:
    """The grid of patches, and how many rows of the position table belong to other tokens.

    `prefix` is the number of other tokens. Only in `bare` models they may have no positions. Raises
    ValueError where the number of rows leaves the grid open.
    """
    table = shapes.get(SHARED_TABLE) or shapes.get(f"blocks.0.attn.{TABLE}")
    relative = table[0] if table else 0
    if "pos_embed" not in shapes:
        if relative:
            return grids.of_relative(relative, hints, pixels=pixels), 0
        size = nominal_size(hints) or (224, 224)
        default = (max(size[0] // pixels[0], 1), max(size[1] // pixels[1], 1))
        return hints.grid or default, 0
    rows = shapes["pos_embed"][1]
    readings = [grids.Reading(rows)]
    if prefix:
        only_patches = grids.Reading(rows, square="released" if bare else "never")
        readings = [grids.Reading(rows - prefix, prefix), only_patches]
        without = hints.arguments.get("no_embed_class")
        if without is not None:
            readings = [grids.Reading(rows)] if without else readings[:1]
    return grids.choose(readings, hints, pixels=pixels, relative=relative)
