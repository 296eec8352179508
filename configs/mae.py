"""A small masked autoencoder on the embedded Fashion-MNIST images: pretraining without labels.

    python -m vit_jax train --config configs/mae.py --workdir runs/mae

An image has 49 patches of 4x4 pixels, and the encoder sees 12 of them. The run is evaluated by the
error of the predicted pixels in hidden patches of held-out images, and by a nearest-neighbour
classifier on the encoder's features. Then fine-tune it:

    python -m vit_jax train --config configs/finetune.py --workdir runs/mae-finetuned \
        --config.init_from=runs/mae --config.image_size=28

The other variants are the paper's pretraining, "Masked Autoencoders Are Scalable Vision Learners"
(arXiv 2111.06377, appendix A.1): 800 epochs of ImageNet-1k at 224 pixels, batch 4096.

    python -m vit_jax train --config configs/mae.py:B/16 --workdir gs://BUCKET/mae-b16

The rate is 1.5e-4 for batches of 256 and grows with the batch. Published accuracy after 1600 epochs
and fine-tuning: B/16 83.66, L/16 85.95, H/14 86.93 (the authors' FINETUNE.md). Published cost of
800 epochs on 128 TPUv3 cores (table 2): L/16 15.4 hours, H/14 34.5 hours.

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): B/16 on
v5e-64 (64 chips) 5.6 hours, 360 chip-hours, MFU 23%; L/16 on v5e-64 (64 chips) 10.5 hours, 673
chip-hours, MFU 27%; H/14 on v5e-64 (64 chips) 30.1 hours, 1,927 chip-hours, MFU 22%.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("small", "B/16", "L/16", "H/14")


def get_config(variant: str = "small") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.objective.name = "mae"
    config.objective.mask_ratio = 0.75
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    if variant == "small":
        _small(config)
    else:
        _paper(config, variant)
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    config.image_size = (28, 28)
    config.batch_size = 128
    config.total.epochs = 20.0
    config.evaluate_every.percent = 20.0
    config.eval_batch_size = 500
    config.log_every.steps = 100

    config.model.name = "MAE-pretrain-Ti/4"
    config.model.width = 96
    config.model.depth = 4
    config.model.mlp_dim = 384
    config.model.num_heads = 3
    config.model.init = "xavier"  # what the results in docs/results.md began with
    config.model.decoder = {"width": 64, "depth": 2, "mlp_dim": 256, "num_heads": 4}

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0
    config.data.mean = (0.286, 0.286, 0.286)  # of the training images
    config.data.std = (0.353, 0.353, 0.353)

    config.evaluators.near = {"kind": "knn", "k": 20}

    config.optimizer.learning_rate = 1.5e-3
    config.schedule.warmup.percent = 10.0


def _paper(config: ml_collections.ConfigDict, size: str) -> None:
    config.image_size = (224, 224)
    config.batch_size = 4096
    config.total.epochs = 800.0
    config.evaluate_every.epochs = 20.0

    config.model.name = f"MAE-pretrain-{size}"
    config.model.dtype = "bfloat16"

    config.data.source = "tfds"
    config.data.name = "imagenet2012"
    config.data.crop = "random_resized"
    config.data.crop_area = (0.2, 1.0)
    config.data.interpolation = "bicubic_antialias"
    config.data.eval_interpolation = "bicubic_antialias"

    config.optimizer.learning_rate = 1.5e-4
    config.optimizer.rate_batch = 256
    config.optimizer.rate_rule = "linear"
    config.optimizer.decay_mask = ("kernel$", "cls$", "mask$")  # as the authors' code, tokens too
    config.optimizer.clip_norm = 0.0
    config.schedule.warmup.epochs = 40.0
