"""CIFAR-10 from scratch: small Vision Transformers against a ResNet-18, with the same budget.

    python -m vit_jax train --config configs/cifar10.py:patch4 --workdir runs/cifar-patch4 \
        --config.data.path=DIR

DIR holds train/ and test/, each with a folder for each of the 10 classes. The variants are patch4
(width 192), patch2 (width 96), both 12 layers deep, and resnet18, at 32 pixels; patch16 and patch32
(width 384) see the images enlarged to 224 pixels. All train for 20 epochs with Adam at a constant
rate of 1e-4, batch 128, shifts of up to 4 pixels and flips. Results and cost: docs/results.md.

The variant long is the ViT of patch 4, width 512 and 6 blocks that
github.com/kentaroy47/vision-transformers-cifar10 trains for 200 epochs: Adam with a rate of 1e-4
that falls as a cosine, batch 512, dropout 0.1, RandAugment. Its log in that repository ends with
79.1%. What differs from that code: an image is shifted before RandAugment, not after; the rate
falls in every step, not in every epoch; the GELU is that of tanh, not erf, and the epsilon of the
norms 1e-6, not 1e-5; and what our models are initialised with.
"""

from typing import Any

import ml_collections

from vit_jax.config import default_config

# image size, name of the model, fields of the model
_MODELS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "patch4": (32, "Ti/4", {}),
    "patch2": (32, "Ti/2", {"width": 96, "mlp_dim": 384, "num_heads": 3}),
    "resnet18": (32, "ResNet-18", {"root": "cifar"}),
    "patch16": (224, "S/16", {}),
    "patch32": (224, "S/32", {}),
    "long": (
        32,
        "S/4",
        {
            **{"width": 512, "depth": 6, "mlp_dim": 512, "num_heads": 8},
            **{"qkv_bias": False, "dropout": 0.1},
        },
    ),
}
VARIANTS = tuple(_MODELS)


def get_config(variant: str = "patch4") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    side, name, fields = _MODELS[variant]
    config = default_config()
    config.image_size = (side, side)
    config.batch_size = 128
    config.total.epochs = 20.0
    config.evaluate_every.epochs = 5.0
    config.eval_batch_size = 1000
    config.log_every.steps = 100

    config.model.name = name
    for field, value in fields.items():
        config.model[field] = value
    if name != "ResNet-18":
        config.model.remat = "none"
        # the operations are small: one program of all layers is faster
        config.model.unroll = fields.get("depth", 12)

    config.data.source = "image_folder"
    config.data.crop = "shift"
    config.data.shift = side // 8
    config.data.crop_pct = 1.0
    config.data.mean = (0.4914, 0.4822, 0.4465)  # of the training images
    config.data.std = (0.2470, 0.2435, 0.2616)

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.clip_norm = 0.0
    config.schedule.decay = "constant"
    if variant == "long":
        _lengthen(config)
    return config


def _lengthen(config: ml_collections.ConfigDict) -> None:
    """Changes what the variant long does not share with the others."""
    config.batch_size = 512
    config.total.epochs = 200.0
    config.schedule.decay = "cosine"
    config.data.std = (0.2023, 0.1994, 0.2010)  # as in the original code
    # RandAugment(2, 14) of 30 with the same operations
    randaugment = {"name": "randaugment_big_vision", "layers": 2, "magnitude": 14 / 3}
    config.augment = (randaugment, "flip", "value_range")
