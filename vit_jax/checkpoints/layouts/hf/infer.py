"""Infers the options of a Hugging Face model from names, shapes and config.json."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import grids
from vit_jax.checkpoints.layouts.hf import names, stem
from vit_jax.checkpoints.layouts.hf.names import TABLE, Parts
from vit_jax.checkpoints.layouts.hints import Hints, decoder_heads, heads, nominal_size
from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.zoo import SIZES

Shapes = Mapping[str, Sequence[int]]

_HEADS = {width: number for width, _, _, number in SIZES.values()} | {1536: 24}
# Family -> its possible values of `model_type`, where these are more than the family's name.
_MODEL_TYPES = {
    "vit": ("vit", "vit_mae", "vit_msn"),
    "vit_hybrid": ("vit-hybrid", "vit_hybrid"),
    "siglip": ("siglip", "siglip_vision_model"),
    "clip": ("clip", "clip_vision_model"),
    "dinov2": ("dinov2", "dinov2_with_registers"),
}
_DEFAULT_HEADS = 12  # the default of every family's config
_GELU = {"gelu": "gelu_erf", "gelu_python": "gelu_erf", "quick_gelu": "gelu_quick"}
_GELU |= dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), "gelu_tanh")
_EPS = {
    "dinov2": 1e-6,
    "dinov2_with_registers": 1e-6,
    "siglip": 1e-6,
    "clip": 1e-5,
}  # fmt: skip; others 1e-12


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    shapes = {name: array.shape for name, array in arrays.items()}
    family = names.family(arrays)
    check_no_pixels(arrays)
    kind = hints.config.get("model_type", family)
    if kind not in _MODEL_TYPES.get(family, (family,)):
        raise ValueError(f"config.json is for a {kind}, but the arrays are those of a {family}")
    config = hints.config.get("vision_config") or hints.config
    hints = dataclasses.replace(hints, config=config)
    body, parts = names.BODIES[family], names.parts(family)
    block = f"{body}{parts.block.replace('{i}', '0')}"
    embedding, query = f"{body}{parts.embedding}.weight", f"{block}.{parts.qkv}{parts.parts[0]}"
    gated = f"{block}.mlp.weights_in.weight"
    fc1 = gated if gated in shapes else f"{block}.{parts.mlp[0]}.weight"
    needed = {embedding: 4, f"{query}.weight": 2, fc1: 2}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(
            f"not a Hugging Face {family} checkpoint: missing or wrong-rank arrays:"
            f" {', '.join(wrong)}"
        )
    width, channels, *patch = shapes[embedding]
    table = _relative_table(shapes, body, block)
    known = {width: _DEFAULT_HEADS} if "model_type" in config else _HEADS
    number = heads(hints, {width: table[-1]} if table else known, width=width)
    stem_options = stem.infer(shapes, config) if family == "vit_hybrid" else None
    stride = stem_options.stride if stem_options else 1
    pixels = (patch[0] * stride, patch[1] * stride)
    grid = _grid(shapes, family, hints, table, pixels)
    size = _image_size(grid, pixels, None if stem_options else _config_size(hints))
    options = zoo.of_parts(
        image_size=size,
        drop_edges=any(side % p for side, p in zip(size, pixels, strict=True)),
        patch_size=(patch[0], patch[1]),
        channels=shapes[stem.SPELLING.root][1] if stem_options else channels,
        stem=stem_options,
        width=width,
        depth=_depth(shapes, body, parts),
        mlp_dim=shapes[fc1][0] // (2 if fc1 == gated else 1),
        mlp="swiglu" if fc1 == gated else "plain",
        num_heads=number,
        qkv_bias=f"{query}.bias" in shapes,
        patch_bias=family != "clip",
        norm_eps=float(config.get("layer_norm_eps") or _EPS.get(family, 1e-12)),
        activation=_gelu(config, family),
        **_extras(shapes, family, config, hints),
    )
    _check_config(options, config)
    return options


def check_no_pixels(names: Collection[str]) -> None:
    """Raises ValueError for a model that predicts the pixels of masked patches (SimMIM)."""
    if any(name.startswith("decoder.0.") for name in names):
        raise ValueError(
            "it is a model for masked image modeling with a pixel decoder, which is not supported:"
            " save only its body, such as ViTModel"
        )


def _check_config(options: EncoderOptions, config: Mapping) -> None:
    """Raises ValueError where config.json does not fit the arrays."""
    found = {
        "hidden_size": options.width,
        "num_hidden_layers": options.depth,
        "intermediate_size": options.mlp_dim,
        "num_channels": options.channels,
        "patch_size": options.patch_size,
        "use_absolute_position_embeddings": options.position != "none",
        "use_relative_position_bias": options.relative_bias == "per_block",
        "use_shared_relative_position_bias": options.relative_bias == "shared",
    }
    fields = dict(config)
    if patch := fields.get("patch_size"):
        fields["patch_size"] = tuple(patch) if isinstance(patch, list) else (patch, patch)
    # A part may exist although its field is False.
    wrong = [
        f"{name} is {fields[name]}, but its arrays have {value}"
        for name, value in found.items()
        if name in fields
        and fields[name] != value
        and fields[name] is not False
        and not (
            name == "use_shared_relative_position_bias" and found["use_relative_position_bias"]
        )
    ]
    if wrong:
        raise ValueError(f"config.json is for another model: its {'; its '.join(wrong)}")
    no_positions = options.position == "none" and options.relative_bias == "none"
    if options.representation_size and config.get("pooler_act", "tanh") != "tanh":
        raise ValueError(
            f"config.json has pooler_act {config['pooler_act']!r}: only 'tanh' is supported"
        )
    if no_positions and config.get("model_type") != "beit":  # BEiT's default has no positions
        raise ValueError("it has no positions: a relative_position_bias_table is missing")


def _extras(shapes: Shapes, family: str, config: Mapping, hints: Hints) -> dict[str, Any]:
    """Options of parts that only some families have."""
    body = names.BODIES[family]
    head = next((n for n in ("classifier", "cls_classifier") if f"{n}.weight" in shapes), "")
    extras: dict[str, Any] = {
        "num_classes": shapes[f"{head}.weight"][0] if head else 0,
        "representation_size": shapes.get(f"{body}pooler.dense.weight", (0,))[0],
        "mask_token": f"{body}embeddings.mask_token" in shapes,
    }
    if family == "deit":
        second = "distillation_classifier.weight" in shapes
        extras |= {"distillation": True, "distillation_head": second}
    elif family == "clip":
        if head:
            raise ValueError(
                "CLIPForImageClassification is not supported: its head pools tokens without a norm"
            )
        extras |= {
            "input_norm": True,
            "norm_at": "pooled",
            "num_classes": shapes.get(names.PROJECTION, (0,))[0],
        }
    elif family == "siglip":
        extras |= {"pool": "map" if f"{body}head.probe" in shapes else "gap"}
    elif family.startswith("dinov2"):
        extras |= {
            "layer_scale": float(config.get("layerscale_value") or 1.0),
            "registers": shapes.get(f"{body}embeddings.register_tokens", (0, 0))[1],
            "pool": "token_gap" if head else "token",
        }
    elif family == "beit":
        extras |= _beit_extras(shapes, body, config)
    elif family == "vit_mae":
        extras |= {"fixed_position": True, "decoder": _decoder(shapes, hints)}
    elif config.get("model_type") == "vit_mae":
        extras |= {"fixed_position": True}
    return extras


def _beit_extras(shapes: Shapes, body: str, config: Mapping) -> dict[str, Any]:
    block = f"{body}encoder.layer.0"
    pooled = f"{body}pooler.layernorm.weight" in shapes
    shared = f"{body}encoder.{TABLE}" in shapes
    own = f"{block}.attention.attention.{TABLE}" in shapes
    scaled = f"{block}.lambda_1" in shapes
    mim_classes = shapes.get("lm_head.weight", (0,))[0]
    return {
        "class_token": True,
        "pool": "gap" if pooled else "token",
        "norm_at": "pooled" if pooled else "tokens",
        "key_bias": f"{block}.attention.attention.key.bias" in shapes,
        "layer_scale": float(config.get("layer_scale_init_value") or 0.1) if scaled else 0.0,
        "relative_bias": "shared" if shared else "per_block" if own else "none",
        "position": "learned_1d" if f"{body}embeddings.position_embeddings" in shapes else "none",
        "mim_classes": mim_classes,
        "mim_norm": mim_classes > 0 and f"{body}layernorm.weight" in shapes,
    }


def _decoder(shapes: Shapes, hints: Hints) -> DecoderOptions:
    width = shapes["decoder.mask_token"][-1]
    number = decoder_heads(hints, width=width)
    last = re.compile(r"decoder\.decoder_layers\.\d+\.output\.dense\.bias")
    return DecoderOptions(
        width=width,
        depth=sum(bool(last.fullmatch(name)) for name in shapes),
        mlp_dim=shapes.get("decoder.decoder_layers.0.intermediate.dense.bias", (0,))[0],
        num_heads=number,
    )


def _gelu(config: Mapping, kind: str) -> Any:
    usual = {"siglip": "gelu_pytorch_tanh", "clip": "quick_gelu"}.get(kind, "gelu")
    name = config.get("hidden_act", usual)
    if name not in _GELU:
        raise ValueError(f"config.json has hidden_act {name!r}: known are {', '.join(_GELU)}")
    return _GELU[name]


def _depth(shapes: Shapes, body: str, parts: Parts) -> int:
    pattern = re.escape(body + parts.block).replace(re.escape("{i}"), r"(\d+)") + r"\."
    return 1 + max(int(m[1]) for name in shapes if (m := re.match(pattern, name)))


def _relative_table(shapes: Shapes, body: str, block: str) -> Sequence[int]:
    candidates = (f"{body}encoder.{TABLE}", f"{block}.attention.attention.{TABLE}")
    return next((shapes[name] for name in candidates if name in shapes), ())


def _config_size(hints: Hints) -> tuple[int, int] | None:
    """The image size in config.json; None where it has none or the user gave a grid."""
    size = hints.config.get("image_size")
    if not size or hints.grid:
        return None
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)


def _image_size(
    grid: tuple[int, int], pixels: tuple[int, int], size: tuple[int, int] | None
) -> tuple[int, int]:
    """`size` where it has this grid, even if it is not a multiple of the patch size.

    transformers takes images of that size and ignores edge pixels that do not fill a patch.
    """
    if size and (size[0] // pixels[0], size[1] // pixels[1]) == grid:
        return size
    return grid[0] * pixels[0], grid[1] * pixels[1]


def _grid(
    shapes: Shapes, kind: str, hints: Hints, table: Sequence[int], pixels: tuple[int, int]
) -> tuple[int, int]:
    """The grid of patches, as `grids.choose` finds it. A patch covers `pixels`."""
    body = names.BODIES[kind]
    if kind in ("siglip", "clip"):
        count = shapes.get(f"{body}embeddings.position_embedding.weight", (0,))[0]
        count -= kind == "clip"
    else:
        prefix = 2 if kind == "deit" else 1
        count = shapes.get(f"{body}embeddings.position_embeddings", (0, prefix))[1] - prefix
    relative = table[0] if table else 0
    if not count and not relative:
        size = nominal_size(hints) or (224, 224)
        return hints.grid or (size[0] // pixels[0], size[1] // pixels[1])
    if not count:
        return grids.of_relative(relative, hints, pixels=pixels)
    return grids.choose([grids.Reading(count)], hints, pixels=pixels, relative=relative)[0]
