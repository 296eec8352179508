"""timm's ViT, DeiT, BEiT and hybrids: what `timm.create_model` saves, as .safetensors or .pth."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import torch_infer, torch_vit
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.interpolation import Methods
from vit_jax.models.layers import Gelu
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit import ViTOptions

MODEL = ViTOptions
RESIZE = Methods(
    position="bicubic_antialias", relative="geometric_linear", patch="bicubic_antialias"
)
FORMATS = (".safetensors", ".pth")

_SCALES, _BEIT_SCALES = ("ls1.gamma", "ls2.gamma"), ("gamma_1", "gamma_2")

# Models of these names have other than the exact GELU, which no file but config.json tells.
_GELU: dict[str, Gelu] = {
    r"quickgelu": "quick",
    r"siglip.*_512|patch32_siglip|giantopt_.*siglip|so400m_patch16_siglip": "tanh",
}
_EXACT = r"base_patch16_siglip.*_512"

constants = torch_vit.constants
numerics = torch_vit.numerics


_HOLDS = {"stem", "distillation", "registers", "register_position", "pool", "norm_at",
          "representation_size", "relative_bias", "mlp", "input_norm", "patch_bias", "qkv_bias",
          "key_bias", "qk_norm", "layer_scale", "mask_token"}  # fmt: skip


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Neither what pretraining adds, nor DeiT III, which calls its LayerScale otherwise."""
    others = ("decoder_embed.weight", "lm_head.weight")
    if any(name in arrays for name in others):
        return False
    deit_3 = "blocks.0.gamma_1" in arrays and not torch_vit.is_beit(arrays)
    return torch_vit.recognises(arrays) and not deit_3


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters alone; LayerScale as timm calls it in such a model."""
    del hints
    scales = _BEIT_SCALES if torch_vit.is_beit(arrays) else _SCALES
    return torch_vit.canonical(arrays, scales=scales)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ViTOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    scale = (_BEIT_SCALES if torch_vit.is_beit(arrays) else _SCALES)[0]
    options = torch_infer.infer(arrays, hints, scale=scale)
    name = str(hints.config.get("architecture", ""))
    kinds = [kind for pattern, kind in _GELU.items() if re.search(pattern, name)]
    if not kinds or re.search(_EXACT, name):
        return options
    return dataclasses.replace(options, gelu=kinds[0])


def entries(options: ViTOptions) -> list[Entry]:
    """The table of a model. Raises ValueError for a model this layout cannot hold."""
    beit = not options.key_bias or options.relative_bias != "none"
    scales = _BEIT_SCALES if beit else _SCALES
    return torch_vit.entries(options, "timm", holds=_HOLDS, scales=scales)


def preprocessing(options: ViTOptions, hints: Hints) -> Preprocessing:
    """What config.json says, or what released models of such parts have."""
    beit = not options.key_bias or options.relative_bias != "none"
    facebook = options.distillation or options.layer_scale and not beit  # DeiT, DeiT III, DINOv2
    default: dict[str, Any] = {"crop": 0.9, "kernel": "bicubic_antialias"}
    return released(options.image_size, hints, **default | (torch_vit.IMAGENET if facebook else {}))
