"""Linear probe of a masked autoencoder on ImageNet-1k (arXiv 2111.06377, appendix A.1).

    python -m vit_jax train --config configs/mae_probe.py:B/16 --workdir gs://BUCKET/mae-probe \
        --config.init_from=gs://BUCKET/mae-b16

Variants: B/16, L/16, H/14. `init_from` is a run of `configs/mae.py` or a released checkpoint of
MAE. Only the head trains: a batch norm without parameters and a linear layer that read the class
token. The encoder gets no gradient, so a step costs a third of a step of fine-tuning.

Published accuracy: B/16 67.8, L/16 76.0, H/14 77.2 (the authors' FINETUNE.md).
Published cost (the same page): 90 epochs of B/16 2 hours 20 minutes on 32 V100.

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): B/16 on
v5e-64 (64 chips) 0.3 hours, 18 chip-hours, MFU 32%.
"""

import ml_collections

from vit_jax.config import default_config

_EPOCHS = {"B/16": 90.0, "L/16": 50.0, "H/14": 50.0}
VARIANTS = tuple(_EPOCHS)


def get_config(variant: str = "B/16") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.needs_init = True
    config.image_size = (224, 224)
    config.batch_size = 16_384
    config.total.epochs = _EPOCHS[variant]
    config.evaluate_every.epochs = 5.0

    config.model.name = f"MAE-{variant}"
    config.model.pool = "token"
    config.model.norm_at = "tokens"
    config.model.head_norm = "batch"
    config.model.head_std = 0.01
    config.model.dtype = "bfloat16"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.crop = "random_resized"
    config.data.crop_limited = True
    config.data.crop_area = (0.08, 1.0)
    config.data.interpolation = "bicubic_antialias"
    config.data.eval_interpolation = "bicubic_antialias"

    config.optimizer.name = "lars"
    config.optimizer.frozen = ("^encoder/",)
    config.optimizer.learning_rate = 0.1
    config.optimizer.rate_batch = 256
    config.optimizer.rate_rule = "linear"
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup.epochs = 10.0
    return config
