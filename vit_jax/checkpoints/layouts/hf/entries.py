"""The table of entries of Hugging Face's vision transformers, for all families."""

import dataclasses
import math
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hf import names, stem
from vit_jax.checkpoints.layouts.hf.names import TABLE, Parts
from vit_jax.checkpoints.layouts.table import Entry, check_holds
from vit_jax.models import positions
from vit_jax.models.interpolation import Method
from vit_jax.models.options import EncoderOptions


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where its family cannot hold it."""
    kind = family(options)
    body, parts = names.BODIES[kind], names.parts(kind)
    _check_holds(options, kind)
    table = [
        *torch.conv("encoder/embedding", f"{body}{parts.embedding}", bias=options.patch_bias),
        *_positions(options, kind),
        *_blocks("encoder/blocks", body + parts.block, parts, options),
        *torch.norm("encoder/norm", _final_norm(options, kind)),
    ]
    if kind == "clip":
        table += torch.norm("encoder/input_norm", f"{body}pre_layrnorm")
        table.append(_lead("encoder/cls", f"{body}embeddings.class_embedding", axes=2))
    elif options.has_class_token:
        table.append(Entry("encoder/cls", (f"{body}embeddings.cls_token",)))
    if options.distillation:
        table.append(Entry("encoder/distillation", (f"{body}embeddings.distillation_token",)))
    if options.registers:
        table.append(Entry("encoder/registers", (f"{body}embeddings.register_tokens",)))
    if options.mask_token:
        table.append(_mask_token(body, kind))
    if options.stem:
        table += stem.entries(options.stem)
    if options.pool == "map":
        table += _attention_pool(f"{body}head", options)
    if options.representation_size:
        table += torch.linear("pre_logits", f"{body}pooler.dense")
    if options.relative_bias == "shared":
        table.append(_relative_bias("encoder/relative_bias", f"{body}encoder.{TABLE}", options))
    if options.mim_classes:
        table += torch.linear("mim_head", "lm_head")
    if options.mim_norm:
        table += torch.norm("mim_norm", "layernorm")
    if options.decoder:
        table += _decoder_entries(options)
    return table + _heads(options, kind)


def _heads(options: EncoderOptions, kind: str) -> list[Entry]:
    if not options.num_classes:
        return []
    if kind == "clip":
        return torch.linear("head", names.PROJECTION.removesuffix(".weight"))
    if not (options.distillation and options.distillation_head):
        return torch.linear("head", "classifier")
    return [
        *torch.linear("head", "cls_classifier"),
        *torch.linear("head_distillation", "distillation_classifier"),
    ]


def family(options: EncoderOptions) -> str:
    """The Hugging Face family that a model belongs to."""
    marks = {
        "clip": options.input_norm,
        "vit_mae": options.decoder or options.fixed_position and not options.num_classes,
        "vit_hybrid": options.stem,
        "siglip": options.pool == "map" or not options.has_class_token,
        "dinov2_with_registers": options.registers,
        "deit": options.distillation,
        "beit": not options.key_bias or options.relative_bias != "none" or options.mim_classes,
        "dinov2": options.layer_scale,
    }
    return next((name for name, present in marks.items() if present), "vit")


def _check_holds(options: EncoderOptions, kind: str) -> None:
    holds = {"image_size", "patch_size", "channels", "width", "depth", "mlp_dim", "num_heads",
             "num_classes", "activation", "norm_eps", "qkv_bias", "fixed_position"}  # fmt: skip
    holds |= {
        "vit": {"representation_size", "mask_token"},
        "vit_hybrid": {"representation_size", "stem"},
        "vit_mae": {"decoder"},
        "deit": {"distillation", "distillation_head", "mask_token", "representation_size"},
        "beit": {"pool", "norm_at", "key_bias", "layer_scale", "relative_bias", "position",
                 "mim_classes", "mim_norm", "mask_token", "class_token"},
        "dinov2": {"layer_scale", "mlp", "mask_token", "pool"},
        "dinov2_with_registers": {"layer_scale", "mlp", "mask_token", "pool", "registers"},
        "siglip": {"pool"},
        "clip": {"input_norm", "patch_bias", "norm_at"},
    }[kind]  # fmt: skip
    check_holds(options, f"hf ({kind})", holds=holds)
    if options.representation_size and options.num_classes:
        raise ValueError(
            "transformers' classifiers have no representation layer: write the model without a head"
            " (num_classes=0), then the layer becomes the pooler"
        )


@dataclasses.dataclass(frozen=True)
class _Plain:
    """The options of a decoder's blocks, with the names of `EncoderOptions`."""

    num_heads: int
    qkv_bias: bool
    key_bias: bool = True
    mlp: str = "plain"
    layer_scale: float = 0.0
    relative_bias: str = "none"


def _blocks(path: str, block: str, parts: Parts, options: Any) -> list[Entry]:
    """The entries of the blocks of an encoder (`EncoderOptions`) or decoder (`_Plain`)."""
    gated = options.mlp == "swiglu"
    mlp = ("mlp.weights_in", "mlp.weights_out") if gated else parts.mlp
    table = [
        *torch.norm(f"{path}/norm1", f"{block}.{parts.norms[0]}"),
        *torch.separate_qkv(
            f"{path}/attention/qkv",
            [f"{block}.{parts.qkv}{part}" for part in parts.parts],
            heads=options.num_heads,
            bias=options.qkv_bias,
            key_bias=options.key_bias,
        ),
        *torch.attention_out(
            f"{path}/attention/out", f"{block}.{parts.out}", heads=options.num_heads
        ),
        *torch.norm(f"{path}/norm2", f"{block}.{parts.norms[1]}"),
        *torch.linear(f"{path}/mlp/fc1", f"{block}.{mlp[0]}"),
        *torch.linear(f"{path}/mlp/fc2", f"{block}.{mlp[1]}"),
    ]
    if options.layer_scale:
        for i in (0, 1):
            table.append(Entry(f"{path}/scale{i + 1}", (f"{block}.{parts.scales[i]}",)))
    if options.relative_bias == "per_block":
        name = f"{block}.attention.attention.{TABLE}"
        table.append(_relative_bias(f"{path}/attention/relative_bias", name, options))
    return table


def _relative_bias(path: str, name: str, options: EncoderOptions) -> Entry:
    """The entry of a table of relative biases, resized as transformers uses it.

    transformers interprets the table of a window h x w as one of w x h and resizes it to h x w. So
    for a window that is not square, it never uses the numbers in its file.
    """
    rows, columns = options.grid
    if rows == columns:
        return Entry(path, (name,))

    def join(table: np.ndarray) -> np.ndarray:
        return positions.resize_relative(
            table, source=(columns, rows), target=(rows, columns), method="bilinear"
        )

    return Entry(path, (name,), join)  # no `split`: `configs` refuses to write such a model


def _positions(options: EncoderOptions, kind: str) -> list[Entry]:
    if options.position == "none":
        return []
    body = names.BODIES[kind]
    if kind in ("beit", "dinov2", "dinov2_with_registers"):
        return [_square_positions(f"{body}embeddings.position_embeddings", options)]
    if kind not in ("siglip", "clip"):
        return [Entry("encoder/position", (f"{body}embeddings.position_embeddings",))]
    return [_lead("encoder/position", f"{body}embeddings.position_embedding.weight", axes=1)]


def _lead(path: str, name: str, *, axes: int) -> Entry:
    """The entry of an array that lacks the first `axes` axes, all of size 1."""
    first = (0,) * axes
    return Entry(path, (name,), lambda a: a[(None,) * axes], lambda a: (a[first],))


def _square_positions(name: str, options: EncoderOptions) -> Entry:
    """The entry of positions that transformers uses as they are only for square images.

    For other images its DINOv2 and BEiT interpret the table as a square grid and resize it, even if
    it has a row for every patch. The other families do so only if the caller asks for it.
    """
    grid = options.grid
    side = math.isqrt(grid[0] * grid[1])
    if grid[0] == grid[1] or side * side != grid[0] * grid[1]:
        return Entry("encoder/position", (name,))
    method: Method = "bicubic_antialias" if options.registers else "bicubic"

    def join(table: np.ndarray) -> np.ndarray:
        return positions.resize(table, source=(side, side), target=grid, method=method)

    # No `split`: DINOv2 is read only, and `configs` refuses to write other BEiTs than square ones.
    return Entry("encoder/position", (name,), join)


def _final_norm(options: EncoderOptions, kind: str) -> str:
    body = names.BODIES[kind]
    if options.mim_classes and not options.mim_norm:
        return "layernorm"
    if options.norm_at == "pooled" and kind != "clip":
        return f"{body}pooler.layernorm"
    return body + names.parts(kind).norm


def _mask_token(body: str, kind: str) -> Entry:
    name = f"{body}embeddings.mask_token"
    if kind.startswith("dinov2"):  # (1, D)
        return _lead("encoder/mask", name, axes=1)
    return Entry("encoder/mask", (name,))


def _attention_pool(name: str, options: EncoderOptions) -> list[Entry]:
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


def _decoder_entries(options: EncoderOptions) -> list[Entry]:
    assert options.decoder is not None
    return [
        *torch.linear("decoder/embedding", "decoder.decoder_embed"),
        Entry("decoder/mask", ("decoder.mask_token",)),
        Entry("decoder/position", ("decoder.decoder_pos_embed",)),
        *_blocks("decoder/blocks", "decoder.decoder_layers.{i}", Parts(),
                 _Plain(options.decoder.num_heads, options.qkv_bias)),
        *torch.norm("decoder/norm", "decoder.decoder_norm"),
        *torch.linear("decoder/prediction", "decoder.decoder_pred"),
    ]  # fmt: skip
