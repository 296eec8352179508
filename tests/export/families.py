"""A tiny model of each family that can be exported."""

import dataclasses
from typing import Any

from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models import zoo
from vit_jax.models.bit import BiTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.regnet import RegNetOptions
from vit_jax.models.resnet import StemOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions

STEM = StemOptions(num_layers=(1,), root_width=16, groups=8)
SIZES: dict[str, Any] = {"image_size": (32, 48), "num_classes": 3}
OPTIONS: dict[str, zoo.Options] = {
    "ViT of grey images": tiny.options(channels=1, num_classes=4, depth=2),
    "hybrid": tiny.options(stem=STEM, patch_size=(1, 1), depth=1),
    "DeiT with distillation token": tiny.options(distillation=True, depth=1),
    "BEiT": tiny.options(
        **{"position": "none", "relative_bias": "per_block", "key_bias": False},
        **{"pool": "gap", "class_token": True, "norm_at": "pooled", "layer_scale": 0.1},
    ),
    "masked autoencoder": tiny.options(
        class_token=True,
        num_classes=0,
        fixed_position=True,
        decoder=DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2),
    ),
    "BiT": BiTOptions(**SIZES, stem=dataclasses.replace(STEM, preactivation=True)),
    "Swin": SwinOptions(
        **SIZES, windows=((2, 3),), width=24, depths=(1, 1), num_heads=(2, 4), norm_eps=1e-6
    ),
    "ResNet": ResNetOptions(**SIZES, depths=(1, 1), width=8),
    "RegNet": RegNetOptions(**SIZES, stem_width=8, widths=(8, 16), depths=(1, 1), group_width=4),
}


def model(kind: str, options: Any = None) -> zoo.Model:
    """A model of a family, with other `options` where they are given."""
    options = options or OPTIONS[kind]
    made = load.assemble(options, tiny.params(options))
    expects = Preprocessing(image_size=options.image_size, mean=(0.4, 0.5, 0.6))
    made.preprocessing = expects.for_channels(options.channels)
    return made
