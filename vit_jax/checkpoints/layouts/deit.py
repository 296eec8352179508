"""facebookresearch/deit: DeiT, with and without distillation, and DeiT III, as .pth."""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import torch_infer, torch_vit
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.models.interpolation import Methods
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

MODELS = VITS
RESIZE = Methods(position="bicubic", patch="bicubic_antialias")
FORMATS = (".pth", ".safetensors")
TORCH_KEY = "model"

_SCALES = ("gamma_1", "gamma_2")  # of DeiT III
_OF_MAE = {"fc_norm.weight", "decoder_embed.weight", "head.0.running_mean"}
_HOLDS = {"distillation", "layer_scale", "qkv_bias"}

constants = torch_vit.constants
numerics = torch_vit.numerics


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    plain = torch_vit.is_plain(arrays) and not torch_vit.is_beit(arrays)
    return plain and _OF_MAE.isdisjoint(arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters alone; LayerScale as DeiT III calls it."""
    del hints
    return torch_vit.canonical(arrays, scales=_SCALES)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    return torch_infer.infer(arrays, hints, scale=_SCALES[0])


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of a model. Raises ValueError for a model this layout cannot hold."""
    return torch_vit.entries(options, "deit", holds=_HOLDS, scales=_SCALES)


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    crop = 1.0 if min(options.image_size) >= 384 else 0.875
    return released(
        options.image_size, hints, crop=crop, kernel="bicubic_antialias", **torch_vit.IMAGENET
    )


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    sure = options.distillation or options.layer_scale > 0
    return torch_vit.assumptions(options, preprocessing, hints, family="DeiT", sure=sure)
