"""A better plain ViT-S/16 on ImageNet-1k (arXiv 2205.01580), as big_vision trains.

    python -m vit_jax train --config configs/plain_vit.py --workdir gs://BUCKET/s16
    python -m vit_jax train --config configs/plain_vit.py:300 --workdir gs://BUCKET/s16-300

The variant is the number of epochs: 90 or 300. Fixed 2D positions, average pooling, batch 1024.

Published accuracy: 76.5 after 90 epochs, 80.0 after 300. Published cost: 6 to 7 hours on a TPU v3-8
for 90 epochs.

What differs from big_vision: an image is flipped after RandAugment, not before.

Planned cost (2026-11-27, libtpu 0.0.42.1, predicted and never run, without evaluations): 90 on
v5e-8 (8 chips) 2.3 hours, 18 chip-hours, MFU 24%; 300 on v5e-8 (8 chips) 7.5 hours, 60 chip-hours,
MFU 24%.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("90", "300")


def get_config(variant: str = "90") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.image_size = (224, 224)
    config.batch_size = 1024
    config.total.epochs = float(variant)

    config.model.name = "S/16"
    config.model.position = "sincos2d"
    config.model.pool = "gap"
    config.model.class_token = False
    config.model.representation_size = 384  # the released config keeps this tanh layer
    config.model.dtype = "bfloat16"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.train_split = "train[:99%]"
    config.data.eval_split = "validation"
    config.data.crop = "inception"
    config.data.crop_pct = 0.875
    config.augment = (
        {"name": "randaugment_big_vision", "layers": 2, "magnitude": 10.0},
        "flip",
        "value_range",
        {"name": "mixup", "alpha": 0.2},
    )

    config.optimizer.name = "adamw"
    config.optimizer.moment_dtype = "bfloat16"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.rate_batch = 1024
    config.optimizer.rate_rule = "none"
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup.steps = 10_000
    return config
