"""facebookresearch/mae: encoder alone, whole masked autoencoder, or fine-tuned model, as .pth."""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import deit, torch_vit
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models.vit import ViTOptions

MODEL = ViTOptions
RESIZE = deit.RESIZE
FORMATS = deit.FORMATS
TORCH_KEY = "model"

canonical = deit.canonical
constants = deit.constants
infer = deit.infer
numerics = torch_vit.numerics
preprocessing = deit.preprocessing


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """A decoder, no head, or a norm after the pool beside a class token."""
    others = torch_vit.is_beit(arrays) or "blocks.0.gamma_1" in arrays
    if not torch_vit.is_plain(arrays) or others:
        return False
    return (
        "head.weight" not in arrays
        or "fc_norm.weight" in arrays
        or "decoder_embed.weight" in arrays
    )


def entries(options: ViTOptions) -> list[Entry]:
    """The table of a model. Raises ValueError for a model this layout cannot hold."""
    pooling = (options.pool, options.norm_at)
    if pooling not in (("token", "tokens"), ("gap", "pooled")):
        raise ValueError(f"the mae layout has no place for pool and norm_at {pooling}")
    if not (options.has_class_token and options.class_position):
        raise ValueError("the mae layout needs a class token with a position")
    return torch_vit.entries(options, "mae", holds={"pool", "norm_at", "decoder"})
