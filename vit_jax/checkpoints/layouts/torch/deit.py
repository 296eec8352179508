"""The .pth layout of facebookresearch/deit: DeiT with and without distillation, DeiT III."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout, present
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.checkpoints.layouts.torch import names, sizes
from vit_jax.models import interpolation
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_SCALES = ("gamma_1", "gamma_2")  # LayerScale of DeiT III
_OF_MAE = {"fc_norm.weight", "decoder_embed.weight", "head.0.running_mean"}
_HOLDS = {"distillation", "layer_scale", "qkv_bias"}


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    plain = names.is_plain(arrays) and not names.is_beit(arrays)
    return plain and _OF_MAE.isdisjoint(arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters without buffers; LayerScale gets the names of DeiT III."""
    del hints
    return names.canonical(arrays, scales=_SCALES)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    return sizes.infer(arrays, hints, scale=_SCALES[0])


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    return names.entries(options, "deit", holds=_HOLDS, scales=_SCALES)


def numerics(options: EncoderOptions) -> dict[str, Any]:
    """As `names.numerics`, with the rows of positions that the original's class has.

    With distillation both tokens have one; DeiT III, the only one with LayerScale, has none.
    """
    fixed = names.numerics(options)
    if options.position != "none" and (options.distillation or options.layer_scale):
        fixed["class_position"] = options.distillation
    return fixed


def lacks(options: EncoderOptions) -> tuple[str, ...]:
    """Parts of the model that the original code does not have."""
    return present(
        {
            "position='none'": options.position == "none",
            "distillation with LayerScale": options.distillation and options.layer_scale,
        }
    )


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As the original code evaluates: only the commands of DeiT III have --eval-crop-ratio 1.0."""
    crop_pct = 1.0 if options.layer_scale else 0.875
    return released(
        options.image_size,
        hints,
        crop_pct=crop_pct,
        interpolation="bicubic_antialias",
        **names.IMAGENET,
    )


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    sure = options.distillation or options.layer_scale > 0
    return names.assumptions(options, preprocessing, hints, family="DeiT", sure=sure)


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: interpolation.OF_DEIT,
    numerics=numerics,
    lacks=lacks,
    constants=names.constants,
    assumptions=assumptions,
    beside=config.of_vit,
    formats=(".pth", ".safetensors"),
    torch_key="model",
)
