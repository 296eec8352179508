"""torchvision's VisionTransformer, with the names of all its releases. Read only."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hints import Hints, assumed, heads, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.interpolation import Methods
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

_HEADS = {768: 12, 1024: 16, 1280: 16}  # width of B, L and H -> heads
_BLOCK = "encoder.layers.encoder_layer_"
_OLD_MLP = re.compile(r"\.mlp\.linear_([12])\.")  # up to 0.13

_NEW_HEAD = re.compile(r"^heads\.(?:0\.)?(weight|bias)$")


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    return "encoder.pos_embedding" in arrays and any(n.startswith("conv_proj.") for n in arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays with the newer names of the MLP. A user's own head becomes `heads.head`."""
    del hints
    newer = {"1": "0", "2": "3"}
    named = {_OLD_MLP.sub(lambda m: f".mlp.{newer[m[1]]}.", k): v for k, v in arrays.items()}
    return {_NEW_HEAD.sub(r"heads.head.\1", name): array for name, array in named.items()}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ViTOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    shapes: dict[str, Sequence[int]] = {name: array.shape for name, array in arrays.items()}
    if any(re.match(r"conv_proj\.\w+\.", name) for name in shapes):
        raise ValueError("a ViT with more than one convolution before its blocks is not supported")
    needed = {"conv_proj.weight": 4, "encoder.pos_embedding": 3, f"{_BLOCK}0.mlp.0.weight": 2}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(
            f"not a torchvision ViT checkpoint: missing or wrong-rank arrays: {', '.join(wrong)}"
        )
    width, channels, *patch = shapes["conv_proj.weight"]
    grid = _grid(shapes["encoder.pos_embedding"][1] - 1, hints)
    layers = [int(m[1]) for name in shapes if (m := re.match(rf"{_BLOCK}(\d+)\.", name))]
    return ViTOptions(
        image_size=(grid[0] * patch[0], grid[1] * patch[1]),
        patch_size=(patch[0], patch[1]),
        channels=channels,
        width=width,
        depth=1 + max(layers),
        mlp_dim=shapes[f"{_BLOCK}0.mlp.0.weight"][0],
        num_heads=heads(hints, _HEADS, width=width),
        num_classes=shapes.get("heads.head.weight", (0,))[0],
        representation_size=shapes.get("heads.pre_logits.weight", (0,))[0],
        activation="gelu_erf",
        norm_eps=1e-6,
    )


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model."""
    block, number = f"{_BLOCK}{{i}}", options.num_heads
    attention = f"{block}.self_attention"
    table = [
        Entry("encoder/cls", ("class_token",)),
        Entry("encoder/position", ("encoder.pos_embedding",)),
        *torch.conv("encoder/embedding", "conv_proj"),
        *torch.norm("encoder/blocks/norm1", f"{block}.ln_1"),
        *torch.fused_qkv(
            "encoder/blocks/attention/qkv",
            f"{attention}.in_proj_weight",
            f"{attention}.in_proj_bias",
            heads=number,
        ),
        *torch.attention_out("encoder/blocks/attention/out", f"{attention}.out_proj", heads=number),
        *torch.norm("encoder/blocks/norm2", f"{block}.ln_2"),
        *torch.linear("encoder/blocks/mlp/fc1", f"{block}.mlp.0"),
        *torch.linear("encoder/blocks/mlp/fc2", f"{block}.mlp.3"),
        *torch.norm("encoder/norm", "encoder.ln"),
    ]
    if options.representation_size:
        table += torch.linear("pre_logits", "heads.pre_logits")
    if options.num_classes:
        table += torch.linear("head", "heads.head")
    return table


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As `ViT_*_Weights.transforms` of the released model of the same size.

    SWAG models crop nothing. At 224 pixels only the SWAG model H/14 is recognised, by its width.
    """
    swag = min(options.image_size) >= 384 or options.width == 1280
    crop_pct = 1.0 if swag else 224 / (242 if _is_l16(options) else 256)
    return released(
        options.image_size,
        hints,
        crop_pct=crop_pct,
        interpolation="bicubic_antialias" if swag else "bilinear_antialias",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    """A message on the number of heads and the preprocessing, which no array contains."""
    fields: dict[str, Any] = {}
    if not hints.heads_are_given:
        fields["num_heads"] = options.num_heads
    if not hints.preprocessor:
        fields |= {
            "crop_pct": round(preprocessing.crop_pct, 3),
            "interpolation": preprocessing.interpolation,
        }
    return assumed(preprocessing, hints, **fields)


def _grid(count: int, hints: Hints) -> tuple[int, int]:
    """The user's grid of `count` patches, or a square. Raises ValueError where it does not fit."""
    side = math.isqrt(max(count, 0))
    grid = hints.grid or (side, side)
    if not count or math.prod(grid) != count:
        what = f"a grid of {grid[0]}x{grid[1]}" if hints.grid else "a square grid"
        raise ValueError(
            f"{count} positions are not {what}: give the checkpoint's grid (convert: --grid)"
        )
    return grid


def _is_l16(options: EncoderOptions) -> bool:
    return options.width == 1024 and options.patch_size == (16, 16)


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: Methods(position="bicubic_align_corners", patch="bicubic_antialias"),
    assumptions=assumptions,
    read_only=True,
)
