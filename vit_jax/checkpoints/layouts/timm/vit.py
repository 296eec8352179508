"""timm's ViT, DeiT, BEiT and hybrids: state dicts of its models, as .safetensors or .pth."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, assumed, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config, origin
from vit_jax.checkpoints.layouts.torch import names, sizes
from vit_jax.models.interpolation import Methods
from vit_jax.models.layers import Activation
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_SCALES, _BEIT_SCALES = ("ls1.gamma", "ls2.gamma"), ("gamma_1", "gamma_2")

# Architectures (patterns) with another GELU than the exact one. Only config.json names them.
_GELU: dict[str, Activation] = {
    r"quickgelu": "gelu_quick",
    r"siglip.*_512|patch32_siglip|giantopt_.*siglip|so400m_patch16_siglip": "gelu_tanh",
}
_EXACT = r"base_patch16_siglip.*_512"
_ACTIVATIONS: dict[Any, Activation] = {
    "gelu": "gelu_erf",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "gelu_quick",
}


_HOLDS = {"stem", "distillation", "registers", "register_position", "pool", "norm_at",
          "representation_size", "relative_bias", "mlp", "input_norm", "patch_bias", "qkv_bias",
          "key_bias", "qk_norm", "layer_scale", "mask_token"}  # fmt: skip


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Excludes files with parts of pretraining, and DeiT III, whose LayerScale has other names.

    Accepts blocks of any kind: `infer` refuses unsupported ones with a clear error.
    """
    others = ("decoder_embed.weight", "lm_head.weight")
    if "patch_embed.proj.weight" not in arrays or any(name in arrays for name in others):
        return False
    if names.is_dinov2(arrays) or names.is_moco(arrays):
        return False
    deit_3 = "blocks.0.gamma_1" in arrays and "fc_norm.weight" not in arrays
    if deit_3 and names.is_plain(arrays) and not names.is_beit(arrays):
        return False
    return any(name.startswith("blocks.0.") for name in arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters without buffers; LayerScale gets timm's names."""
    del hints
    scales = _BEIT_SCALES if names.is_beit(arrays) else _SCALES
    return names.canonical(arrays, scales=scales)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    scale = (_BEIT_SCALES if names.is_beit(arrays) else _SCALES)[0]
    options = sizes.infer(arrays, hints, scale=scale)
    return dataclasses.replace(options, **_config_numerics(options, hints))


def _config_numerics(options: EncoderOptions, hints: Hints) -> dict[str, Any]:
    """Fields that config.json specifies, by its arguments or by the name of the architecture."""
    name = str(hints.config.get("architecture", ""))
    arguments = hints.model_args
    fields: dict[str, Any] = {}
    kinds = [kind for pattern, kind in _GELU.items() if re.search(pattern, name)]
    if kinds and not re.search(_EXACT, name):
        fields["activation"] = kinds[0]
    if kind := _ACTIVATIONS.get(arguments.get("act_layer")):
        fields["activation"] = kind
    # Only CLIP's models have another epsilon than timm's default `norm_layer`.
    if options.input_norm and name and ("clip" not in name or "norm_layer" in arguments):
        fields["norm_eps"] = 1e-6
    return fields


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    beit = not options.key_bias or options.relative_bias != "none"
    scales = _BEIT_SCALES if beit else _SCALES
    return names.entries(options, "timm", holds=_HOLDS, scales=scales)


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """The preprocessing in config.json, or that of released models with the same parts."""
    beit = not options.key_bias or options.relative_bias != "none"
    facebook = options.distillation or options.layer_scale and not beit  # DeiT, DeiT III, DINOv2
    whole = min(options.image_size) >= 384 or facebook and not options.distillation
    default: dict[str, Any] = {
        "crop_pct": 1.0 if whole else 0.9,
        "interpolation": "bicubic_antialias",
    }
    return released(options.image_size, hints, **default | (names.IMAGENET if facebook else {}))


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    """A message on fields that models with the same arrays differ in and config.json lacks."""
    fields: dict[str, Any] = {}
    arguments = hints.arguments
    if not arguments.get("architecture"):
        fields["activation"] = options.activation
        in_shapes = options.qk_norm or options.relative_bias != "none"
        if not (in_shapes or hints.num_heads or arguments.get("num_heads")):
            fields["num_heads"] = options.num_heads
        if options.input_norm:
            fields["norm_eps"] = options.norm_eps
    either = options.has_class_token and not options.distillation and options.pool != "map"
    if either and not arguments.get("global_pool"):
        fields["pool"] = options.pool
    return assumed(preprocessing, hints, **fields)


def numerics(options: EncoderOptions) -> dict[str, Any]:
    """As `names.numerics_with_pool`; timm's DeiT and BEiT have positions of all tokens."""
    fixed = names.numerics_with_pool(options)
    if options.distillation or config.is_beit(options):
        fixed["class_position"] = True
    return fixed


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: Methods(
        position="bicubic_antialias", relative="geometric_linear", patch="bicubic_antialias"
    ),
    numerics=numerics,
    lacks=origin.vit_lacks,
    constants=names.constants,
    assumptions=assumptions,
    beside=config.of_vit,
    config_only=config.config_only,
    original=origin.vit,
    formats=(".safetensors", ".pth"),
    folders="also",
)
