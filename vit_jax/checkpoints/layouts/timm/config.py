"""timm's config.json: the name of an architecture, its arguments and its preprocessing.

`timm.create_model("local-dir:FOLDER")` reads it. All layouts except hf write this file beside their
weights and read it, so its names of arguments are always timm's.
"""

import dataclasses
from typing import Any

from vit_jax.checkpoints.layouts.layout import Beside
from vit_jax.models.bit import BiTOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions
from vit_jax.models.zoo import Options

GELU = {"gelu_erf": "gelu", "gelu_tanh": "gelu_tanh", "gelu_quick": "quick_gelu"}
_POOLS = {"token": "token", "gap": "avg", "map": "map"}
_INTERPOLATIONS = {
    "bicubic_antialias": "bicubic",
    "bilinear_antialias": "bilinear",
    "lanczos_antialias": "lanczos",
    "nearest": "nearest",
}
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}
_HYBRIDS: dict[tuple[int, ...], str] = {  # by the number of bottlenecks per stage
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
_BITS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "50", (3, 4, 23, 3): "101", (3, 8, 36, 3): "152"}
_RESNETS = {
    (False, (2, 2, 2, 2)): "18",
    (False, (3, 4, 6, 3)): "34",
    **{(True, layers): name for layers, name in _BITS.items()},
}
_CLIP_EPS = 1e-5  # of the norms of timm's CLIPs; its other ViTs have 1e-6
_SWINS = {96: "tiny", 128: "base", 192: "large"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Model:
    """A model in timm's terms."""

    architecture: str  # with `arguments` it builds this model, or the nearest that timm has
    arguments: dict[str, Any]
    first_conv: str
    classifier: str | list[str] = "head.fc"
    pool: str = "avg"
    fixed_size: bool = True


def of_vit(
    options: EncoderOptions, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> Beside:
    """The config.json of a ViT, without options that timm does not have."""
    stem = options.stem
    first = f"backbone.{'stem.' if stem.num_layers else ''}conv" if stem else "proj"
    model = _Model(
        architecture=_vit_name(options),
        arguments=vit_arguments(options),
        first_conv=f"patch_embed.{first}",
        classifier=["head", "head_dist"] if options.heads == 2 else "head",
        pool=_POOLS.get(options.pool, ""),
    )
    beside = _beside(model, options, preprocessing, class_names)
    if options.decoder:
        beside["config.json"]["decoder_num_heads"] = options.decoder.num_heads
    return beside


def of_bit(
    options: BiTOptions, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> Beside:
    """The config.json of a BiT."""
    layers = _BITS.get(options.stem.num_layers, "50")
    name = f"{layers}x{max(options.stem.root_width // 64, 1)}"
    known = {"50x1", "50x3", "101x1", "101x3", "152x2", "152x4"}
    model = _Model(
        architecture=f"resnetv2_{name if name in known else '50x1'}_bit",
        arguments={"in_chans": options.channels},
        first_conv="stem.conv",
        fixed_size=False,
    )
    return _beside(model, options, preprocessing, class_names)


def of_swin(
    options: SwinOptions, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> Beside:
    """The config.json of a Swin."""
    model = _Model(
        architecture=f"swin_{_SWINS.get(options.width, 'tiny')}_patch4_window7_224",
        arguments=swin_arguments(options),
        first_conv="patch_embed.proj",
    )
    return _beside(model, options, preprocessing, class_names)


def of_resnet(
    options: ResNetOptions, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> Beside:
    """The config.json of a ResNet with batch norm."""
    layers = _RESNETS.get((options.bottleneck, options.depths), "")
    arguments: dict[str, Any] = {"in_chans": options.channels}
    if not layers:
        layers = "50" if options.bottleneck else "18"
        arguments["layers"] = list(options.depths)
    model = _Model(
        architecture=f"resnet{layers}",
        arguments=arguments,
        first_conv="conv1",
        classifier="fc",
        fixed_size=False,
    )
    return _beside(model, options, preprocessing, class_names)


def _beside(
    model: _Model, options: Options, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> Beside:
    height, width = options.image_size
    expects: dict[str, Any] = {
        "input_size": [options.channels, height, width],
        "fixed_input_size": model.fixed_size,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": "squash" if preprocessing.fit == "squash" else "center",
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "num_classes": options.num_classes,
        "first_conv": model.first_conv,
        "classifier": model.classifier,
    }
    if name := _INTERPOLATIONS.get(preprocessing.interpolation):
        expects["interpolation"] = name
    fields: dict[str, Any] = {
        "architecture": model.architecture,
        "num_classes": options.num_classes,
        "num_features": options.feature_size,
        "global_pool": model.pool,
        "model_args": model.arguments,
        "pretrained_cfg": expects,
    }
    if class_names:
        fields["label_names"] = list(class_names)
    return {"config.json": fields}


def vit_arguments(options: EncoderOptions) -> dict[str, Any]:
    """The arguments of timm's ViT that are JSON values."""
    gated = options.mlp == "swiglu"
    found: dict[str, Any] = {
        "img_size": list(options.image_size),
        "patch_size": _one(options.patch_size),
        "in_chans": options.channels,
        "embed_dim": options.width,
        "depth": options.depth,
        "num_heads": options.num_heads,
        "mlp_ratio": ratio((1 + gated) * options.mlp_dim, options.width),
        "qkv_bias": options.qkv_bias,
        "init_values": options.layer_scale or None,
        "global_pool": _POOLS.get(options.pool, ""),
    }
    # For one token it is the same norm, which timm has before it.
    pooled = options.norm_at == "pooled" and options.pool != "token"
    if is_beit(options):
        if pooled != (options.pool == "gap"):  # older releases of timm lack this argument
            found["use_fc_norm"] = pooled
        return found | {
            "use_abs_pos_emb": options.position != "none",
            "use_rel_pos_bias": options.relative_bias == "per_block",
            "use_shared_rel_pos_bias": options.relative_bias == "shared",
        }
    found |= {
        "qk_norm": options.qk_norm,
        "class_token": options.has_class_token,
        "no_embed_class": not options.position_prefix,
        "pos_embed": "none" if options.position == "none" else "learn",
        "reg_tokens": options.registers,
        "pre_norm": options.input_norm,
        "fc_norm": pooled,
    }
    return found if gated else found | {"act_layer": GELU[options.activation]}


def swin_arguments(options: SwinOptions) -> dict[str, Any]:
    """The arguments of timm's Swin that are JSON values."""
    blocks = [options.block(stage) for stage in range(len(options.depths))]
    ratios = [ratio(block.mlp_dim, block.width) for block in blocks]
    return {
        "img_size": list(options.image_size),
        "patch_size": _one(options.patch_size),
        "in_chans": options.channels,
        "embed_dim": options.width,
        "depths": list(options.depths),
        "num_heads": list(options.stage_heads),
        "window_size": [list(window) for window in options.stage_windows],
        "mlp_ratio": ratios[0] if len(set(ratios)) == 1 else ratios,
        "qkv_bias": options.qkv_bias,
    }


def config_only(options: EncoderOptions) -> tuple[str, ...]:
    """The fields of a ViT that config.json specifies, but the arrays do not."""
    if is_beit(options) or options.mlp != "plain":
        return ("pool",)
    named = options.input_norm and options.norm_eps in (_CLIP_EPS, 1e-6)
    return ("pool", "activation", "norm_eps") if named else ("pool", "activation")


def is_beit(options: EncoderOptions) -> bool:
    """Whether timm's class for the model is Beit."""
    return options.qkv_bias and not options.key_bias or options.relative_bias != "none"


def ratio(hidden: int, width: int) -> float:
    """The `mlp_ratio` for which int(mlp_ratio * width) is the hidden width."""
    return (hidden + 0.5) / width if hidden % width else hidden / width


def _vit_name(options: EncoderOptions) -> str:
    if options.stem:
        return _HYBRIDS.get(options.stem.num_layers, _HYBRIDS[(3, 4, 9)])
    if is_beit(options):
        return f"beit_{'large' if options.width == 1024 else 'base'}_patch16_224"
    if options.distillation:
        size = {192: "tiny", 384: "small"}.get(options.width, "base")
        return f"deit_{size}_distilled_patch16_224"
    if options.mlp == "swiglu":
        return "vit_giant_patch14_dinov2"
    if options.input_norm and options.norm_eps == _CLIP_EPS:
        return "vit_base_patch16_clip_224"  # only the name says the epsilon
    size = _SIZES.get(options.width, "base")
    patch = 14 if size == "huge" else 16
    return f"vit_{size}_patch{patch}_224"


def _one(sides: tuple[int, int]) -> int | list[int]:
    return sides[0] if sides[0] == sides[1] else list(sides)
