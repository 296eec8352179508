"""Builds timm's own model for some options, to compare logits with. timm is not a dependency."""

import functools
import importlib
from typing import Any

from vit_jax.checkpoints.layouts.layout import present
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.models.bit import BiTOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.resnet import StemOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions


def vit(options: EncoderOptions) -> Any:
    """A plain, distilled or hybrid ViT, or a BEiT. Raises ValueError where timm has none."""
    if options.mim_classes or options.decoder:
        raise ValueError("timm has no models for masked pretraining")
    arguments = config.vit_arguments(options) | {
        "num_classes": options.num_classes,
        "norm_layer": _norm(options),
    }
    if config.is_beit(options):
        return _beit(options, arguments)
    library = importlib.import_module("timm.layers")
    if options.mlp == "swiglu":
        arguments |= {"act_layer": "silu", "mlp_layer": library.SwiGLUPacked}
    if options.stem:
        backbone = _hybrid_stem(options.stem, options.channels)
        arguments["embed_layer"] = functools.partial(library.HybridEmbed, backbone=backbone)
    if options.distillation:
        return importlib.import_module("timm.models.deit").VisionTransformerDistilled(**arguments)
    return importlib.import_module("timm.models.vision_transformer").VisionTransformer(**arguments)


def vit_lacks(options: EncoderOptions) -> tuple[str, ...]:
    """Parts of a model that the class that timm 1.0 has for it does not have.

    timm's classes are Beit, VisionTransformerDistilled and VisionTransformer.
    """
    beit, keys = config.is_beit(options), options.qkv_bias and options.key_bias
    distilled = options.distillation and not beit
    return present(
        {
            "representation_size": options.representation_size,
            "patch_bias=True with input_norm": options.input_norm and options.patch_bias,
            "relative biases with key_bias=True": options.relative_bias != "none" and keys,
            "BEiT with qk_norm": beit and options.qk_norm,
            "BEiT with input_norm": beit and options.input_norm,
            "BEiT with distillation": beit and options.distillation,
            "BEiT with registers": beit and options.registers,
            "BEiT with a stem": beit and options.stem,
            "BEiT with pool='map'": beit and options.pool == "map",
            "BEiT with a mask_token": beit and options.mask_token,
            "distillation with registers": distilled and options.registers,
            "distillation with position='none'": distilled and options.position == "none",
        }
    )


def _beit(options: EncoderOptions, arguments: dict[str, Any]) -> Any:
    if options.activation != "gelu_erf":
        raise ValueError(f"timm has no BEiT with activation={options.activation!r}")
    return importlib.import_module("timm.models.beit").Beit(**arguments)


def bit(options: BiTOptions) -> Any:
    create = importlib.import_module("timm.models.resnetv2").ResNetV2
    return create(num_classes=options.num_classes, **_stem(options.stem, options.channels))


def resnet_lacks(options: ResNetOptions) -> tuple[str, ...]:
    """As `vit_lacks`, for a ResNet with batch norm."""
    if (options.root, options.width, len(options.depths)) == ("imagenet", 64, 4):
        return ()
    sizes = f"width={options.width} and {len(options.depths)} stages"
    return (f"ResNet with root={options.root!r}, {sizes}",)


def resnet(options: ResNetOptions) -> Any:
    """A ResNet with batch norm. Raises ValueError where timm has none."""
    if missing := resnet_lacks(options):
        raise ValueError(f"timm has no {missing[0]}")
    library = importlib.import_module("timm.models.resnet")
    return library.ResNet(
        library.Bottleneck if options.bottleneck else library.BasicBlock,
        options.depths,
        num_classes=options.num_classes,
        in_chans=options.channels,
    )


def swin(options: SwinOptions) -> Any:
    """A Swin. Raises ValueError where timm has none."""
    windows, grids = options.stage_windows, options.stage_grids(options.image_size)
    tiled = all(
        g % w == 0 for pair in zip(grids, windows, strict=True) for g, w in zip(*pair, strict=True)
    )
    if options.padding != "after_shift" and not tiled or options.activation != "gelu_erf":
        raise ValueError(
            f"timm has no Swin with padding={options.padding!r} and"
            f" activation={options.activation!r}"
        )
    return importlib.import_module("timm.models.swin_transformer").SwinTransformer(
        **config.swin_arguments(options),
        num_classes=options.num_classes,
        norm_layer=_norm(options),
    )


def _norm(options: EncoderOptions | SwinOptions) -> Any:
    torch = importlib.import_module("torch")
    return functools.partial(torch.nn.LayerNorm, eps=options.norm_eps)


def _hybrid_stem(stem: StemOptions, channels: int) -> Any:
    resnet, arguments = importlib.import_module("timm.models.resnetv2"), _stem(stem, channels)
    if stem.num_layers:
        return resnet.ResNetV2(num_classes=0, global_pool="", **arguments)
    sizes = {"in_chs": arguments["in_chans"], "out_chs": arguments["stem_chs"]}
    names = ("stem_type", "preact", "conv_layer", "norm_layer")
    return resnet.create_resnetv2_stem(**sizes, **{name: arguments[name] for name in names})


def _stem(stem: StemOptions, channels: int) -> dict[str, Any]:
    """The arguments of timm's ResNetV2."""
    library, same = importlib.import_module("timm.layers"), stem.padding == "same"
    kind = "same" if same else "fixed" if stem.pool_padding == "zero" else ""
    conv = library.StdConv2dSame if same else library.StdConv2d
    return {
        "layers": stem.num_layers,
        "channels": stem.stage_widths,
        "in_chans": channels,
        "stem_chs": stem.root_width,
        "stem_type": kind,
        "preact": stem.preactivation,
        "conv_layer": functools.partial(conv, eps=stem.std_eps),
        "norm_layer": functools.partial(
            library.GroupNormAct, num_groups=stem.groups, eps=stem.norm_eps
        ),
    }
