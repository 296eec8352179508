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
    """A decoder, no head, or a class token beside a norm after the pool: others have none."""
    if not deit.recognises(arrays):
        return False
    fine_tuned = "fc_norm.weight" in arrays and "cls_token" in arrays
    return fine_tuned or "decoder_embed.weight" in arrays or "head.weight" not in arrays


def entries(options: ViTOptions) -> list[Entry]:
    """The table of a model. Raises ValueError for a model this layout cannot hold."""
    if options.layer_scale:
        raise ValueError("the mae layout has no place for layer_scale")
    return torch_vit.entries(options, "mae", scales=())
