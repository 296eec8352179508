"""Fine-tunes a masked autoencoder on ImageNet-1k, end to end (arXiv 2111.06377, appendix A.1).

    python -m vit_jax train --config configs/mae_finetune.py:B/16 --workdir gs://BUCKET/mae-ft \
        --config.init_from=gs://BUCKET/mae-b16

Variants: B/16, L/16, H/14. `init_from` is a run of `configs/mae.py` or a released checkpoint of
MAE. The average of the patches is classified; the rate falls from layer to layer towards the input.

Published accuracy: B/16 83.66, L/16 85.95, H/14 86.93 (the authors' FINETUNE.md).
Published cost (the same page): B/16 7 hours 11 minutes and L/16 8 hours 52 minutes on 32 V100,
H/14 13 hours 9 minutes on 64 V100.

What differs from the authors' code: an image is flipped after RandAugment, not before.

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): B/16 on
v5e-64 (64 chips) 1.1 hours, 73 chip-hours, MFU 26%.
"""

import ml_collections

from vit_jax.config import default_config

# Epochs, learning rate for batches of 256, layer decay, drop_path.
_SIZES = {
    "B/16": (100.0, 5e-4, 0.65, 0.1),
    "L/16": (50.0, 1e-3, 0.75, 0.2),
    "H/14": (50.0, 1e-3, 0.75, 0.3),
}
VARIANTS = tuple(_SIZES)


def get_config(variant: str = "B/16") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    epochs, rate, layer_decay, drop_path = _SIZES[variant]
    config = default_config()
    config.needs_init = True
    config.image_size = (224, 224)
    config.batch_size = 1024
    config.total.epochs = epochs
    config.evaluate_every.epochs = 5.0

    config.model.name = f"MAE-{variant}"
    config.model.dtype = "bfloat16"
    config.model.drop_path = drop_path
    config.model.head_std = 2e-5

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.crop = "random_resized"
    config.data.crop_area = (0.08, 1.0)
    config.data.interpolation = "bicubic_antialias"
    config.data.eval_interpolation = "bicubic_antialias"
    config.augment = (
        {"name": "randaugment_timm", "interpolation": "bicubic"},
        "flip",
        "value_range",
        {"name": "erase", "probability": 0.25},
        {"name": "mix", "mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    )

    config.objective.label_smoothing = 0.1
    config.optimizer.learning_rate = rate
    config.optimizer.rate_batch = 256
    config.optimizer.rate_rule = "linear"
    config.optimizer.layer_decay = layer_decay
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup.epochs = 5.0
    config.schedule.end_value = 1e-6
    return config
