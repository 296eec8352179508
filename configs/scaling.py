"""ViT-g/14 and ViT-G/14 of "Scaling Vision Transformers" (arXiv 2106.04560), as big_vision trains.

    python -m vit_jax train --config configs/scaling.py:G/14 --workdir gs://BUCKET/vit-G \
        --config.data.name=NAME --config.mesh.fsdp=16

JFT-3B is not public: name your own images. Batch 16,384, 1,000,000 steps, Adafactor, the reciprocal
square root of the step, attention pooling. The decay of the head is 100 times that of the body:
3 against 0.03, times the schedule (big_vision's `wd` over `lr` is `weight_decay` here).

Published accuracy of G/14 on ImageNet after fine-tuning: 90.45 (abstract). The paper shows the cost
in a figure only; later ones state 210,000 hours of a TPUv3 core for g/14 on 16 billion images
(arXiv 2305.13035) and over 500,000 for G/14 (arXiv 2310.16764).

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): G/14 on
v5p-512 (256 chips) 206.9 hours, 52,960 chip-hours, MFU 54%.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("g/14", "G/14")


def get_config(variant: str = "G/14") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.image_size = (224, 224)
    config.batch_size = 16_384
    config.total.steps = 1_000_000
    config.evaluate_every.steps = 10_000

    config.model.name = variant
    config.model.pool = "map"
    config.model.class_token = False
    config.model.dtype = "bfloat16"
    config.model.init = "big_vision"
    config.model.remat = "full"
    config.model.head_bias = -10.0

    config.data.source = "tfds"
    config.data.crop = "inception"
    config.objective.cross_entropy = "sigmoid"

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 8e-4
    config.optimizer.rate_batch = 16_384
    config.optimizer.rate_rule = "none"
    config.optimizer.weight_decay = 0.03
    config.optimizer.decay_factors = (("^head/", 100.0),)
    config.optimizer.clip_norm = 1.0
    config.schedule.decay = "rsqrt"
    config.schedule.timescale.steps = 10_000
    config.schedule.warmup.steps = 10_000
    config.schedule.cooldown.steps = 50_000
    return config
