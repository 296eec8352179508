"""Masked patch prediction, the self-supervision of the ViT paper: colours of corrupted patches.

    python -m vit_jax train --config configs/masked_patch.py --workdir runs/masked-patch

A small model on the embedded Fashion-MNIST images. Half of the 49 patches of 4 pixels are corrupted
and their mean colours predicted, without labels. Then fine-tune it:

    python -m vit_jax train --config configs/finetune.py --workdir runs/masked-patch-finetuned \
        --config.init_from=runs/masked-patch --config.image_size=28

`configs/masked_patch.py:paper` is the recipe of "An Image is Worth 16x16 Words", appendix B.1.2:
ViT-B/16, batch 4096, 1,000,000 steps (100,000 are nearly as good):

    python -m vit_jax train --config configs/masked_patch.py:paper --workdir gs://BUCKET/mpp \
        --config.data.name=imagenet2012

Published: 79.9% on ImageNet after pretraining on JFT-300M and fine-tuning (section 4.6). The paper
states no cost for this run.

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): paper on
v5e-64 (64 chips) 24.8 hours, 1,584 chip-hours, MFU 38%.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("small", "paper")


def get_config(variant: str = "small") -> ml_collections.ConfigDict:
    config = default_config()
    config.objective.name = "masked_patch"
    config.objective.target = "mean_colour"
    config.optimizer.name = "adam"
    config.schedule.decay = "cosine"
    if variant == "small":
        _small(config)
    elif variant == "paper":
        _paper(config)
    else:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    config.image_size = (28, 28)
    config.batch_size = 128
    config.total.epochs = 20.0
    config.evaluate_every.percent = 20.0
    config.eval_batch_size = 500
    config.log_every.steps = 100

    config.model.name = "Ti/4"
    config.model.width = 96
    config.model.depth = 4
    config.model.mlp_dim = 384
    config.model.num_heads = 3

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0
    config.data.mean = (0.286, 0.286, 0.286)  # of the training images
    config.data.std = (0.353, 0.353, 0.353)

    config.evaluators.near = {"kind": "knn", "k": 20}
    config.optimizer.learning_rate = 1e-3
    config.schedule.warmup.percent = 10.0


def _paper(config: ml_collections.ConfigDict) -> None:
    config.image_size = (224, 224)
    config.batch_size = 4096
    config.total.steps = 1_000_000
    config.evaluate_every.steps = 10_000
    config.model.name = "B/16"
    config.model.dtype = "bfloat16"
    config.data.source = "tfds"  # your copy: the authors' images were JFT-300M
    config.data.crop = "inception"
    config.augment = ("flip", "value_range")
    config.optimizer.learning_rate = 2e-4
    config.optimizer.rate_batch = 4096
    config.optimizer.rate_rule = "none"
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup.steps = 10_000
