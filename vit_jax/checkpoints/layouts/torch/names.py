"""timm's names of the parts of a ViT, which DeiT, MAE and BEiT share.

The layouts `timm`, `deit`, `mae` and `beit` differ in the names of LayerScale, in the fields that
their readers assume, and in how they resize parameters.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hints import Hints, assumed
from vit_jax.checkpoints.layouts.resnet import of_timm, stem_entries, with_numerics
from vit_jax.checkpoints.layouts.table import Arrays, Entry, check_holds
from vit_jax.models import positions
from vit_jax.models.layers import BlockOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.resnet import StemOptions

IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

TABLE = "relative_position_bias_table"
SHARED_TABLE = f"rel_pos_bias.{TABLE}"
STEM = StemOptions(std_eps=1e-8, std_eps_in="variance", norm_eps=1e-5)
SPELLING = of_timm("patch_embed.backbone.")
ROOT_ALONE = dataclasses.replace(
    SPELLING,
    root="patch_embed.backbone.conv.weight",
    root_norm="patch_embed.backbone.norm",
)


# The fields that all these layouts can hold.
SIZES = frozenset({"image_size", "patch_size", "channels", "width", "depth", "mlp_dim",
                   "num_heads", "num_classes", "class_token", "position", "class_position",
                   "fixed_position", "activation", "norm_eps"})  # fmt: skip

# Parts that only timm's models have.
_TIMM = ("reg_token", "attn_pool.latent", "norm_pre.weight", "blocks.0.attn.q_norm.weight",
         "pre_logits.fc.weight", SPELLING.root, ROOT_ALONE.root)  # fmt: skip


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    return "patch_embed.proj.weight" in arrays and "blocks.0.attn.qkv.weight" in arrays


def is_dinov2(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether names are facebookresearch's of DINOv2: registers, chunks, gates, mask of rank 2."""
    if "patch_embed.proj.weight" not in arrays:
        return False
    mask = arrays.get("mask_token")
    marks = ("register_tokens", "blocks.0.mlp.w12.weight", "blocks.0.0.norm1.weight")
    return any(name in arrays for name in marks) or mask is not None and mask.ndim == 2


def square_grid(arrays: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """The square grid of positions with a row for a class token; None if the rows do not fit."""
    table = arrays.get("pos_embed")
    if table is None or table.ndim != 3 or table.shape[1] < 2:
        return None
    side = math.isqrt(table.shape[1] - 1)
    return (side, side) if side * side == table.shape[1] - 1 else None


def is_moco(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether it is a MoCo v3: it has a projection of several layers, or MoCo's fixed positions."""
    if not recognises(arrays) or "cls_token" not in arrays:
        return False
    projection = arrays.get("head.0.weight")
    if projection is not None and projection.ndim == 2 and "head.1.running_mean" in arrays:
        return True
    grid = square_grid(arrays)
    if grid is None or arrays["pos_embed"][:, 0].any():
        return False
    return grid != (1, 1) and positions.is_moco(arrays["pos_embed"][:, 1:], grid)


def is_plain(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether it could be a DeiT, MAE or BEiT."""
    timm = any(name in arrays for name in _TIMM) or is_dinov2(arrays) or is_moco(arrays)
    return recognises(arrays) and "cls_token" in arrays and not timm


def is_beit(names: Mapping[str, Any]) -> bool:
    """Whether it is a BEiT: only BEiTs have biases of queries and values only, or relative ones."""
    marks = ("blocks.0.attn.q_bias", f"blocks.0.attn.{TABLE}", SHARED_TABLE)
    return any(name in names for name in marks)


def canonical(arrays: Mapping[str, np.ndarray], *, scales: Sequence[str]) -> Arrays:
    """The parameters without buffers; `scales` are the names for the two LayerScales."""
    names = {f"gamma_{i}": scales[i - 1] for i in (1, 2)} | {
        f"ls{i}.gamma": scales[i - 1] for i in (1, 2)
    }

    def renamed(name: str) -> str:
        block = re.fullmatch(r"(blocks\.\d+\.)(gamma_[12]|ls[12]\.gamma)", name)
        return block[1] + names[block[2]] if block else name

    kept = {k: v for k, v in arrays.items() if not k.endswith("relative_position_index")}
    return _summed_biases({renamed(k): v for k, v in kept.items()})


def _summed_biases(arrays: Arrays) -> Arrays:
    """Adds a shared table of relative biases to that of each block, where a file has both."""
    if SHARED_TABLE not in arrays or f"blocks.0.attn.{TABLE}" not in arrays:
        return arrays
    shared = arrays.pop(SHARED_TABLE)
    return {k: v + shared if k.endswith(f".attn.{TABLE}") else v for k, v in arrays.items()}


def entries(
    options: EncoderOptions, layout: str, *, holds: Collection[str], scales: Sequence[str] = ()
) -> list[Entry]:
    """The table of entries of a model. `holds` are fields of the layout besides `SIZES`.

    Raises ValueError where the layout cannot hold the model.
    """
    _check(options, layout, holds)
    table = [
        *torch.conv("encoder/embedding", "patch_embed.proj", bias=options.patch_bias),
        *_blocks("encoder/blocks", "blocks.{i}", options.block(), scales),
        *torch.norm("encoder/norm", "fc_norm" if options.norm_at == "pooled" else "norm"),
    ]
    if options.stem:
        spelling = SPELLING if options.stem.num_layers else ROOT_ALONE
        table += stem_entries(options.stem, spelling, path="encoder/stem")
    present = {
        ("encoder/cls", "cls_token"): options.has_class_token,
        ("encoder/distillation", "dist_token"): options.distillation,
        ("encoder/registers", "reg_token"): options.registers,
        ("encoder/mask", "mask_token"): options.mask_token,
        ("encoder/position", "pos_embed"): options.position == "learned_1d",
        ("encoder/relative_bias", SHARED_TABLE): options.relative_bias == "shared",
    }
    table += [Entry(path, (name,)) for (path, name), there in present.items() if there]
    if options.input_norm:
        table += torch.norm("encoder/input_norm", "norm_pre")
    if options.pool == "map":
        table += _attention_pool(options)
    if options.representation_size:
        table += torch.linear("pre_logits", "pre_logits.fc")
    if options.num_classes:
        table += torch.linear("head", "head")
    if options.num_classes and options.heads == 2:
        table += torch.linear("head_distillation", "head_dist")
    if options.mim_classes:
        table += torch.linear("mim_head", "lm_head")
    return table + (_decoder(options) if options.decoder else [])


def constants(options: EncoderOptions) -> Arrays:
    """The table of fixed positions, which readers expect in the file."""
    if options.position != "sincos2d":
        return {}
    table = positions.sincos2d(options.grid, options.width)
    return {"pos_embed": np.pad(table, ((0, 0), (options.position_prefix, 0), (0, 0)))}


def numerics(options: EncoderOptions) -> dict[str, Any]:
    """The fields that readers of the arrays assume, unless the architecture's name is known."""
    fixed: dict[str, Any] = {
        "activation": "gelu_erf",
        "norm_eps": 1e-5 if options.input_norm else 1e-6,
    }
    if options.stem:
        fixed |= with_numerics(options.stem, STEM)
    # For the class token, a norm after the pool computes the same as one before it.
    if options.pool == "token" and options.norm_at != "tokens":
        fixed["norm_at"] = "tokens"
    return fixed


def numerics_with_pool(options: EncoderOptions) -> dict[str, Any]:
    """As `numerics`, for layouts that hold any pool.

    Without a config, readers infer the pool of a model with a class token from the name of the last
    norm.
    """
    fixed = numerics(options)
    usual = "gap" if options.norm_at == "pooled" and options.pool == "gap" else "token"
    either = options.has_class_token and options.pool in ("token", "gap")
    if either and not options.distillation and options.pool != usual:
        fixed |= {"pool": usual, "class_token": True}
    return fixed


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints, *, family: str, sure: bool
) -> tuple[str, ...]:
    """Messages on assumed values of a DeiT or MAE file without timm's config.json.

    `sure` says whether the file has parts that only models of the `family` have.
    """
    fields: dict[str, Any] = {}
    if not hints.arguments.get("architecture"):
        fields["activation"] = options.activation
        if not hints.heads_are_given:
            fields["num_heads"] = options.num_heads
    notes = assumed(preprocessing, hints, **fields)
    if sure or not notes:
        return notes
    other = "models of timm and others have the same names (give convert: --source-layout)"
    return (*notes, f"it is read as a {family} model, but {other}")


def _check(options: EncoderOptions, layout: str, holds: Collection[str]) -> None:
    check_holds(options, layout, holds={*SIZES, *holds})
    wrong = {
        f"position={options.position!r}": options.position
        not in ("learned_1d", "none", "sincos2d"),
        "pool='token_gap'": options.pool == "token_gap",
        "registers without positions beside a class token with a position (class_position=False"
        " in `load` adds the position to the token)": "register_position" in holds
        and options.registers
        and options.class_position != options.register_position
        and options.has_class_token
        and options.position == "learned_1d",
        # readers of timm's names take it for an EVA-02, which has rotary positions
        "a gated MLP with biases of queries and values alone": options.mlp == "swiglu"
        and options.qkv_bias
        and not options.key_bias,
        "a pre-activation stem": options.stem and options.stem.preactivation,
    }
    if found := [what for what, present in wrong.items() if present]:
        raise ValueError(f"the {layout} layout cannot hold {', '.join(found)}")


def _blocks(path: str, name: str, options: BlockOptions, scales: Sequence[str]) -> list[Entry]:
    attention = f"{name}.attn"
    bias: str | tuple[str, str] = f"{attention}.qkv.bias"
    if not options.key_bias:
        bias = (f"{attention}.q_bias", f"{attention}.v_bias")
    heads = options.num_heads
    table = [
        *torch.norm(f"{path}/norm1", f"{name}.norm1"),
        *torch.fused_qkv(
            f"{path}/attention/qkv",
            f"{attention}.qkv.weight",
            bias if options.qkv_bias else "",
            heads=heads,
        ),
        *torch.attention_out(f"{path}/attention/out", f"{attention}.proj", heads=heads),
        *torch.norm(f"{path}/norm2", f"{name}.norm2"),
        *torch.linear(f"{path}/mlp/fc1", f"{name}.mlp.fc1"),
        *torch.linear(f"{path}/mlp/fc2", f"{name}.mlp.fc2"),
    ]
    if options.qk_norm:
        table += torch.norm(f"{path}/attention/query_norm", f"{attention}.q_norm")
        table += torch.norm(f"{path}/attention/key_norm", f"{attention}.k_norm")
    if options.layer_scale:
        table += [Entry(f"{path}/scale{i}", (f"{name}.{scales[i - 1]}",)) for i in (1, 2)]
    if options.relative_grid:
        table.append(Entry(f"{path}/attention/relative_bias", (f"{attention}.{TABLE}",)))
    return table


def _attention_pool(options: EncoderOptions) -> list[Entry]:
    """Entries of attention pooling: the query's projection is separate from keys and values."""
    fused = torch.fused_qkv("pool/attention/qkv", "weight", "bias", heads=options.num_heads)

    def separated(entry: Entry) -> Entry:
        leaf = entry.names[0]
        return Entry(
            entry.path,
            (f"attn_pool.q.{leaf}", f"attn_pool.kv.{leaf}"),
            lambda q, kv: entry.join(np.concatenate([q, kv])),
            lambda a: np.split(entry.split(a)[0], [options.width]),
        )

    return [
        Entry("pool/probe", ("attn_pool.latent",)),
        *map(separated, fused),
        *torch.attention_out("pool/attention/out", "attn_pool.proj", heads=options.num_heads),
        *torch.norm("pool/norm", "attn_pool.norm"),
        *torch.linear("pool/mlp/fc1", "attn_pool.mlp.fc1"),
        *torch.linear("pool/mlp/fc2", "attn_pool.mlp.fc2"),
    ]


def _decoder(options: EncoderOptions) -> list[Entry]:
    sizes = options.decoder
    assert sizes
    block = options.plain_block(
        width=sizes.width,
        mlp_dim=sizes.mlp_dim,
        num_heads=sizes.num_heads,
        qkv_bias=options.qkv_bias,
    )
    return [
        *torch.linear("decoder/embedding", "decoder_embed"),
        Entry("decoder/mask", ("mask_token",)),
        Entry("decoder/position", ("decoder_pos_embed",)),
        *_blocks("decoder/blocks", "decoder_blocks.{i}", block, ()),
        *torch.norm("decoder/norm", "decoder_norm"),
        *torch.linear("decoder/prediction", "decoder_pred"),
    ]
