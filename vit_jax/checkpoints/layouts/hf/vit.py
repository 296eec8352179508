"""Hugging Face's vision transformers: the options of a file, and the table of a model.

All families name the same parts; `_Parts` says how each names those of a block.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hf import names, stem
from vit_jax.checkpoints.layouts.hints import Hints, heads
from vit_jax.checkpoints.layouts.table import Entry, check_holds
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.vit import ViTOptions
from vit_jax.models.zoo import SIZES

Shapes = Mapping[str, Sequence[int]]

_HEADS = {width: number for width, _, _, number in SIZES.values()} | {1536: 24}
_DECODER_HEADS = {512: 16}
_GELU = {"gelu": "erf", "gelu_python": "erf", "quick_gelu": "quick", "gelu_new": "tanh"}
_GELU |= {"gelu_pytorch_tanh": "tanh", "gelu_fast": "tanh", "gelu_accurate": "tanh"}
_EPS = {"dinov2": 1e-6, "dinov2_with_registers": 1e-6, "siglip": 1e-6}  # others 1e-12
_TABLE = "relative_position_bias.relative_position_bias_table"


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Names of the parts of a block, and of what stands around the blocks."""

    block: str = "encoder.layer.{i}"
    norms: tuple[str, str] = ("layernorm_before", "layernorm_after")
    qkv: str = "attention.attention."
    parts: tuple[str, str, str] = ("query", "key", "value")
    out: str = "attention.output.dense"
    mlp: tuple[str, str] = ("intermediate.dense", "output.dense")
    scales: tuple[str, str] = ("lambda_1", "lambda_2")
    embedding: str = "embeddings.patch_embeddings.projection"
    norm: str = "layernorm"


_DINO = _Parts(
    norms=("norm1", "norm2"),
    mlp=("mlp.fc1", "mlp.fc2"),
    scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
)
_SIGLIP = _Parts(
    block="encoder.layers.{i}",
    norms=("layer_norm1", "layer_norm2"),
    qkv="self_attn.",
    parts=("q_proj", "k_proj", "v_proj"),
    out="self_attn.out_proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    embedding="embeddings.patch_embedding",
    norm="post_layernorm",
)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ViTOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    shapes = {name: array.shape for name, array in arrays.items()}
    family = names.family(arrays)
    config = hints.config.get("vision_config", hints.config)
    hints = dataclasses.replace(hints, config=config)
    body, parts = names.BODIES[family], _parts(family)
    block = f"{body}{parts.block.replace('{i}', '0')}"
    embedding, query = f"{body}{parts.embedding}.weight", f"{block}.{parts.qkv}{parts.parts[0]}"
    gated = f"{block}.mlp.weights_in.weight"
    fc1 = gated if gated in shapes else f"{block}.{parts.mlp[0]}.weight"
    needed = {embedding: 4, f"{query}.weight": 2, fc1: 2}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(f"no {family} of Hugging Face: {', '.join(wrong)} missing or misshapen")
    width, channels, *patch = shapes[embedding]
    table = _relative_table(shapes, body, block)
    number = heads(hints, {width: table[-1]} if table else _HEADS, width=width)
    stem_options = stem.infer(shapes, config) if family == "vit_hybrid" else None
    grid = _grid(shapes, family, hints, table, patch, stem_options.stride if stem_options else 1)
    stride = stem_options.stride if stem_options else 1
    options = ViTOptions(
        image_size=(grid[0] * patch[0] * stride, grid[1] * patch[1] * stride),
        patch_size=(patch[0], patch[1]),
        channels=shapes[stem.SPELLING.root][1] if stem_options else channels,
        stem=stem_options,
        width=width,
        depth=_depth(shapes, body, parts),
        mlp_dim=shapes[fc1][0] // (2 if fc1 == gated else 1),
        mlp="swiglu" if fc1 == gated else "plain",
        num_heads=number,
        qkv_bias=f"{query}.bias" in shapes,
        norm_eps=float(config.get("layer_norm_eps", _EPS.get(family, 1e-12))),
        gelu=_gelu(config, family),
        **_extras(shapes, family, config, hints),
    )
    _check_config(options, config)
    return options


def _check_config(options: ViTOptions, config: Mapping) -> None:
    """Raises ValueError where config.json is of another model than the arrays."""
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
    told = dict(config)
    if patch := told.get("patch_size"):
        told["patch_size"] = tuple(patch) if isinstance(patch, list) else (patch, patch)
    # Parts that the config denies may be there all the same.
    wrong = [
        f"{name} {told[name]}, its arrays {value}"
        for name, value in found.items()
        if name in told and told[name] != value and told[name] is not False
    ]
    if wrong:
        raise ValueError(f"config.json is of another model: it says {'; '.join(wrong)}")
    if options.position == "none" and options.relative_bias == "none":
        raise ValueError("it has no positions: a relative_position_bias_table is missing")


def _extras(shapes: Shapes, family: str, config: Mapping, hints: Hints) -> dict[str, Any]:
    """Options of what not every family has."""
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
    elif family == "siglip":
        extras |= {"pool": "map" if f"{body}head.probe" in shapes else "gap"}
    elif family.startswith("dinov2"):
        extras |= {
            "layer_scale": float(config.get("layerscale_value", 1.0)) or 1.0,
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
    shared = f"{body}encoder.{_TABLE}" in shapes
    own = f"{block}.attention.attention.{_TABLE}" in shapes
    scaled = f"{block}.lambda_1" in shapes
    return {
        "class_token": True,
        "pool": "gap" if pooled else "token",
        "norm_at": "pooled" if pooled else "tokens",
        "key_bias": f"{block}.attention.attention.key.bias" in shapes,
        "layer_scale": (float(config.get("layer_scale_init_value", 0)) or 0.1) if scaled else 0.0,
        "relative_bias": "shared" if shared else "per_block" if own else "none",
        "position": "learned_1d" if f"{body}embeddings.position_embeddings" in shapes else "none",
        "mim_classes": shapes.get("lm_head.weight", (0,))[0],
    }


def _decoder(shapes: Shapes, hints: Hints) -> DecoderOptions:
    width = shapes["decoder.mask_token"][-1]
    told = hints.decoder_heads or hints.config.get("decoder_num_attention_heads", 0)
    number = told or _DECODER_HEADS.get(width, 0)
    if not number:
        raise ValueError(
            "the file does not tell the number of heads of its decoder and width"
            f" {width} is of no known one: give decoder_heads"
        )
    last = re.compile(r"decoder\.decoder_layers\.\d+\.output\.dense\.bias")
    return DecoderOptions(
        width=width,
        depth=sum(bool(last.fullmatch(name)) for name in shapes),
        mlp_dim=shapes.get("decoder.decoder_layers.0.intermediate.dense.bias", (0,))[0],
        num_heads=number,
    )


def entries(options: ViTOptions) -> list[Entry]:
    """The table of a model. Raises ValueError for a model that no family can hold."""
    kind = family(options)
    body, parts = names.BODIES[kind], _parts(kind)
    _check_holds(options, kind)
    table = [
        *torch.conv("embedding", f"{body}{parts.embedding}"),
        *_positions(options, kind),
        *_blocks("blocks", body + parts.block, parts, options),
        *torch.norm("norm", _final_norm(options, kind)),
    ]
    if options.has_class_token:
        table.append(Entry("cls", (f"{body}embeddings.cls_token",)))
    if options.distillation:
        table.append(Entry("distillation", (f"{body}embeddings.distillation_token",)))
    if options.registers:
        table.append(Entry("registers", (f"{body}embeddings.register_tokens",)))
    if options.mask_token:
        table.append(_mask_token(body, kind))
    if options.stem:
        table += stem.entries(options.stem)
    if options.pool == "map":
        table += _attention_pool(f"{body}head", options)
    if options.representation_size:
        table += torch.linear("pre_logits", f"{body}pooler.dense")
    if options.relative_bias == "shared":
        table.append(Entry("relative_bias", (f"{body}encoder.{_TABLE}",)))
    if options.mim_classes:
        table += torch.linear("mim_head", "lm_head")
    if options.decoder:
        table += _decoder_entries(options)
    return table + _heads(options)


def _heads(options: ViTOptions) -> list[Entry]:
    if not options.num_classes:
        return []
    if not (options.distillation and options.distillation_head):
        return torch.linear("head", "classifier")
    return [
        *torch.linear("head", "cls_classifier"),
        *torch.linear("head_distillation", "distillation_classifier"),
    ]


def family(options: ViTOptions) -> str:
    """The family whose options these are."""
    marks = {
        "vit_mae": options.decoder or options.fixed_position and not options.num_classes,
        "vit_hybrid": options.stem,
        "siglip": options.pool == "map" or not options.has_class_token,
        "dinov2_with_registers": options.registers,
        "deit": options.distillation,
        "beit": not options.key_bias or options.relative_bias != "none" or options.mim_classes,
        "dinov2": options.layer_scale,
    }
    return next((name for name, present in marks.items() if present), "vit")


def _check_holds(options: ViTOptions, kind: str) -> None:
    holds = {"image_size", "patch_size", "channels", "width", "depth", "mlp_dim", "num_heads",
             "num_classes", "gelu", "norm_eps", "qkv_bias", "fixed_position"}  # fmt: skip
    holds |= {
        "vit": {"representation_size", "mask_token"},
        "vit_hybrid": {"representation_size", "stem"},
        "vit_mae": {"decoder"},
        "deit": {"distillation", "distillation_head", "mask_token", "representation_size"},
        "beit": {"pool", "norm_at", "key_bias", "layer_scale", "relative_bias", "position",
                 "mim_classes", "mask_token", "class_token"},
        "dinov2": {"layer_scale", "mlp", "mask_token", "pool"},
        "dinov2_with_registers": {"layer_scale", "mlp", "mask_token", "pool", "registers"},
        "siglip": {"pool"},
    }[kind]  # fmt: skip
    check_holds(options, f"hf ({kind})", holds=holds)


def _blocks(
    path: str, block: str, parts: _Parts, options: Any, *, plain: bool = False
) -> list[Entry]:
    """The blocks of the encoder, or `plain` ones of the decoder."""
    gated = not plain and options.mlp == "swiglu"
    mlp = ("mlp.weights_in", "mlp.weights_out") if gated else parts.mlp
    table = [
        *torch.norm(f"{path}/norm1", f"{block}.{parts.norms[0]}"),
        *torch.separate_qkv(
            f"{path}/attention/qkv",
            [f"{block}.{parts.qkv}{part}" for part in parts.parts],
            heads=options.num_heads,
            bias=plain or options.qkv_bias,
            key_bias=plain or options.key_bias,
        ),
        *torch.attention_out(
            f"{path}/attention/out", f"{block}.{parts.out}", heads=options.num_heads
        ),
        *torch.norm(f"{path}/norm2", f"{block}.{parts.norms[1]}"),
        *torch.linear(f"{path}/mlp/fc1", f"{block}.{mlp[0]}"),
        *torch.linear(f"{path}/mlp/fc2", f"{block}.{mlp[1]}"),
    ]
    if not plain and options.layer_scale:
        for i in (0, 1):
            table.append(Entry(f"{path}/scale{i + 1}", (f"{block}.{parts.scales[i]}",)))
    if not plain and options.relative_bias == "per_block":
        name = f"{block}.attention.attention.{_TABLE}"
        table.append(Entry(f"{path}/attention/relative_bias", (name,)))
    return table


def _positions(options: ViTOptions, kind: str) -> list[Entry]:
    if options.position == "none":
        return []
    body = names.BODIES[kind]
    if kind != "siglip":
        return [Entry("position", (f"{body}embeddings.position_embeddings",))]
    return [
        Entry(
            "position",
            (f"{body}embeddings.position_embedding.weight",),
            lambda a: a[None],
            lambda a: (a[0],),
        )
    ]


def _final_norm(options: ViTOptions, kind: str) -> str:
    body = names.BODIES[kind]
    if options.mim_classes:
        return "layernorm"
    if options.norm_at == "pooled":
        return f"{body}pooler.layernorm"
    return body + _parts(kind).norm


def _mask_token(body: str, kind: str) -> Entry:
    name = f"{body}embeddings.mask_token"
    if kind.startswith("dinov2"):  # (1, D)
        return Entry("mask", (name,), lambda a: a[None], lambda a: (a[0],))
    return Entry("mask", (name,))


def _attention_pool(name: str, options: ViTOptions) -> list[Entry]:
    return [
        Entry("pool/probe", (f"{name}.probe",)),
        *torch.fused_qkv(
            "pool/attention/qkv",
            f"{name}.attention.in_proj_weight",
            f"{name}.attention.in_proj_bias",
            heads=options.num_heads,
        ),
        *torch.attention_out(
            "pool/attention/out", f"{name}.attention.out_proj", heads=options.num_heads
        ),
        *torch.norm("pool/norm", f"{name}.layernorm"),
        *torch.linear("pool/mlp/fc1", f"{name}.mlp.fc1"),
        *torch.linear("pool/mlp/fc2", f"{name}.mlp.fc2"),
    ]


def _decoder_entries(options: ViTOptions) -> list[Entry]:
    return [
        *torch.linear("decoder/embedding", "decoder.decoder_embed"),
        Entry("decoder/mask", ("decoder.mask_token",)),
        Entry("decoder/position", ("decoder.decoder_pos_embed",)),
        *_blocks("decoder/blocks", "decoder.decoder_layers.{i}", _Parts(), options.decoder,
                 plain=True),
        *torch.norm("decoder/norm", "decoder.decoder_norm"),
        *torch.linear("decoder/prediction", "decoder.decoder_pred"),
    ]  # fmt: skip


def _parts(kind: str) -> _Parts:
    return _SIGLIP if kind == "siglip" else _DINO if kind.startswith("dinov2") else _Parts()


def _gelu(config: Mapping, kind: str) -> Any:
    name = config.get("hidden_act", "gelu_pytorch_tanh" if kind == "siglip" else "gelu")
    if name not in _GELU:
        raise ValueError(f"hidden_act {name!r} of the config is none of {', '.join(_GELU)}")
    return _GELU[name]


def _depth(shapes: Shapes, body: str, parts: _Parts) -> int:
    pattern = re.escape(body + parts.block).replace(re.escape("{i}"), r"(\d+)") + r"\."
    return 1 + max(int(m[1]) for name in shapes if (m := re.match(pattern, name)))


def _relative_table(shapes: Shapes, body: str, block: str) -> Sequence[int]:
    places = (f"{body}encoder.{_TABLE}", f"{block}.attention.attention.{_TABLE}")
    return next((shapes[name] for name in places if name in shapes), ())


def _grid(
    shapes: Shapes, kind: str, hints: Hints, table: Sequence[int], patch: list[int], stride: int
) -> tuple[int, int]:
    """Told, that of the config's image size where it fits, or square."""
    body = names.BODIES[kind]
    if kind == "siglip":
        count = shapes.get(f"{body}embeddings.position_embedding.weight", (0,))[0]
    else:
        prefix = 2 if kind == "deit" else 1
        count = shapes.get(f"{body}embeddings.position_embeddings", (0, prefix))[1] - prefix
    size = hints.config.get("image_size")
    if size and not hints.grid:
        sides = list(size) if isinstance(size, list | tuple) else [size, size]
        rows, columns = (side // (p * stride) for side, p in zip(sides, patch, strict=True))
        fits = (2 * rows - 1) * (2 * columns - 1) + 3 == table[0] if table else True
        if fits and count in (0, rows * columns):
            return rows, columns
    if not count and table:
        side = (round((table[0] - 3) ** 0.5) + 1) // 2
        count = (hints.grid or (side,))[0] * (hints.grid or (side, side))[1]
    return hints.square(count)
