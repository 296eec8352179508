"""The layout of facebookresearch/moco-v3: a pretrained encoder, or one with a linear classifier.

The encoder is timm's ViT with other fixed positions, and with 12 heads even at width 384. A file of
pretraining has two encoders: as in the original code, `base_encoder` is read, not the average that
gave the targets. The projection for the loss is not a classifier, so it is left out. Read only.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, assumed_heads, heads, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.timm import vit as timm
from vit_jax.checkpoints.layouts.torch import names, sizes
from vit_jax.models.interpolation import Methods
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_HEADS = {384: 12, 768: 12, 1024: 16, 1280: 16}
_PROJECTION = re.compile(r"head\.\d+\.")


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters of the encoder and of its classifier, without a projection."""
    kept = {k: v for k, v in arrays.items() if not _PROJECTION.match(k)}
    return timm.canonical(kept, hints)


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    found = [name for name in arrays if _PROJECTION.match(name)]
    return (f"left out: head.* ({len(found)} arrays), a projection",) if found else ()


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    embedding = arrays.get("patch_embed.proj.weight")
    if embedding is not None and embedding.ndim:
        number = heads(hints, _HEADS, width=embedding.shape[0])
        hints = dataclasses.replace(hints, num_heads=number)
    hints = dataclasses.replace(hints, grid=hints.grid or names.square_grid(arrays))
    return sizes.infer(arrays, hints, scale="ls1.gamma")


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model."""
    return names.entries(options, "moco", holds={"qkv_bias"})


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As the original code evaluates its linear classifiers: it crops 224 of 256 pixels."""
    crop_pct, interpolation = 224 / 256, "bilinear_antialias"
    return released(
        options.image_size, hints, crop_pct=crop_pct, interpolation=interpolation, **names.IMAGENET
    )


LAYOUT = Layout(
    models=VITS,
    recognises=names.is_moco,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: Methods(position="sincos2d", patch="bicubic_antialias"),
    notes=notes,
    assumptions=assumed_heads,  # the ViT-S of MoCo has more heads than others
    read_only=True,
)
