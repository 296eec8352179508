"""The names of Vision Transformers: sizes, hybrids, and series of released models."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.models.classifier import ViTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.interpolation import OF_DEIT, Methods
from vit_jax.models.masked_autoencoder import MaskedAutoencoderOptions
from vit_jax.models.masked_image_model import MaskedImageModelOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# name: width D, depth L, MLP width M, heads H
SIZES = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "M": (512, 12, 2048, 8),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "So400m": (1152, 27, 4304, 16),
    "H": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "G": (1664, 48, 8192, 16),
    "e": (1792, 56, 15360, 16),
}

# name: bottlenecks of each stage, patch of the stem's output. In R50+B/16 the fourth stage of a
# ResNet-50 is folded into the third (paper, appendix B.1.3). The root of R+Ti/16 has stride 4, not
# 2 as its name suggests, so its tokens are 32 pixels wide.
HYBRIDS = {
    "R+Ti/16": ((), 8),
    "R26+S/32": ((2, 2, 2, 2), 1),
    "R26+B/32": ((2, 2, 2, 2), 1),
    "R50+B/32": ((3, 4, 6, 3), 1),
    "R50+B/16": ((3, 4, 9), 1),
    "R50+L/32": ((3, 4, 6, 3), 1),
    "R50+L/16": ((3, 4, 9), 1),
}

# The plain models that `names` lists; any other SIZE/PATCH can be created too.
PLAIN = (
    *("Ti/16", "S/32", "S/16", "M/16", "B/32", "B/16", "B/8", "L/32", "L/16", "So400m/14"),
    *("H/14", "g/14", "G/14", "e/14"),
)


@dataclasses.dataclass(frozen=True)
class Series:
    """A series of released models of plain sizes: what they have in common."""

    sizes: tuple[str, ...]  # published SIZE/PATCH; others can be created too
    parts: Mapping[str, Any]  # fields of the options
    input: Mapping[str, Any]  # fields of `Preprocessing`
    options: type[EncoderOptions] = ViTOptions
    whole_from: int | None = None  # pixels of the short side from which images are not cropped
    resize: Methods = OF_DEIT  # the codes of all series resize alike


IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bicubic_antialias"}
_DEIT = {"activation": "gelu_erf", "init": "deit"}
_BEIT = {
    **{"activation": "gelu_erf", "position": "none", "class_token": True, "key_bias": False},
    "init": "beit",
}

# DeiT (arXiv 2012.12877) and DeiT III (2204.07118); MAE (2111.06377); BEiT (2106.08254). The
# names with "pretrain" include the parts of pretraining, the others are for fine-tuning.
SERIES = {
    "DeiT": Series(("Ti/16", "S/16", "B/16"), _DEIT, IMAGENET),
    "DeiT-distilled": Series(("Ti/16", "S/16", "B/16"), _DEIT | {"distillation": True}, IMAGENET),
    "DeiT-III": Series(
        ("S/16", "M/16", "B/16", "L/16", "H/14"),
        _DEIT | {"layer_scale": 1e-4, "class_position": False},
        IMAGENET | {"crop_pct": 1.0},
    ),
    "MAE": Series(
        ("B/16", "L/16", "H/14"),
        {"activation": "gelu_erf", "pool": "gap", "norm_at": "pooled", "class_token": True},
        IMAGENET,
        whole_from=225,
    ),
    "MAE-pretrain": Series(
        ("B/16", "L/16", "H/14"),
        {"activation": "gelu_erf", "init": "mae", "decoder": DecoderOptions()},
        IMAGENET,
        MaskedAutoencoderOptions,
        whole_from=225,
    ),
    "BEiT": Series(
        ("B/16", "L/16"),
        _BEIT | {"pool": "gap", "norm_at": "pooled", "relative_bias": "per_block"},
        {"crop_pct": 0.9, "interpolation": "bicubic_antialias"},
        whole_from=384,
    ),
    "BEiT-pretrain": Series(
        ("B/16", "L/16"),
        _BEIT | {"relative_bias": "shared", "mim_classes": 8192},
        {"crop_pct": 0.9, "interpolation": "bicubic_antialias"},
        MaskedImageModelOptions,
        whole_from=384,
    ),
}
BEIT_SCALES = {"B": 0.1, "L": 1e-5}  # initial LayerScale by size
