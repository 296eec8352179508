"""Pretraining of "An Image is Worth 16x16 Words" (arXiv 2010.11929), table 3.

    python -m vit_jax train --config configs/vit.py:B/16-i21k --workdir gs://BUCKET/b16-i21k

A variant is a model and a dataset: MODEL-i1k (ImageNet-1k, 1.28M images), MODEL-i21k (ImageNet-21k,
12.4M after duplicates are merged) or MODEL-jft (JFT-300M, 303M images). Name your own copy of the
last two: --config.data.name=NAME or --config.data.source=image_folder --config.data.path=DIR.
`VARIANTS` lists all. All: batch 4096, 224 pixels, 10,000 steps of warm-up.

Published accuracy on ImageNet after fine-tuning by `configs/vit_finetune.py` (table 5, at 384 px):

    pretrained on    B/16    B/32    L/16    L/32    H/14
    ImageNet-1k      77.91   73.38   76.53   71.16
    ImageNet-21k     83.97   81.28   85.15   80.99   85.13
    JFT-300M         84.15   80.73   87.12   84.37   88.04

With 512 pixels (H/14: 518) and Polyak averaging: H/14-jft 88.55, L/16-jft 87.76, L/16-i21k 85.30
(table 2). Before fine-tuning, on the dataset of pretraining (thread 62 of the authors' code):
precision at 1 on ImageNet-21k B/16 47.88, B/32 44.04, L/16 49.90, L/32 45.42, H/14 49.06; top-1 on
ImageNet-1k B/16 74.79, B/32 69.19, L/16 66.90, L/32 72.59.

The longer runs of the paper are here. Its shorter ones are 7 epochs of L/16-jft and R50+L/16-jft
and 30 of L/16-i21k and L/32-i21k: --config.total.epochs=7 or 30.

Published cost (table 2): L/16-i21k 230, L/16-jft (14 epochs) 680 and H/14-jft 2,500 days of a
TPUv3 core.

Planned cost (2026-11-27, libtpu 0.0.42.1, predicted and never run, without evaluations): B/16-i1k
on v5e-64 (64 chips) 2.9 hours, 188 chip-hours, MFU 30%.
"""

import ml_collections

from vit_jax.config import default_config

_TWICE = {"L/16": 14.0, "H/14": 14.0, "R50+L/16": 14.0}  # JFT: epochs of the longer runs

# Peak learning rate of each model on JFT-300M; 7 epochs, those of `_TWICE` 14.
_JFT = {
    **{"B/16": 8e-4, "B/32": 8e-4, "L/32": 6e-4, "L/16": 4e-4, "H/14": 3e-4},
    **{"R50x1": 1e-3, "R50x2": 1e-3, "R101x1": 8e-4, "R152x1": 6e-4, "R152x2": 6e-4},
    **{"R50+B/16": 8e-4, "R50+B/32": 8e-4, "R50+L/32": 2e-4, "R50+L/16": 4e-4},
}
_I21K = {"B/16": 90.0, "B/32": 90.0, "L/16": 90.0, "L/32": 90.0}  # epochs; L: 30 or 90
_I1K = ("B/16", "B/32", "L/16", "L/32")

VARIANTS = (
    *(f"{model}-i1k" for model in _I1K),
    *(f"{model}-i21k" for model in _I21K),
    *(f"{model}-jft" for model in _JFT),
)


def get_config(variant: str = "B/16-i1k") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    model, data = variant.rsplit("-", 1)
    config = default_config()
    config.image_size = (224, 224)
    config.batch_size = 4096
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.data.source = "tfds"
    config.data.crop = "inception"
    config.augment = ("flip", "value_range")
    config.optimizer.name = "adamw"
    config.optimizer.rate_batch = 4096
    config.optimizer.rate_rule = "none"  # the paper has one batch size
    config.schedule.warmup.steps = 10_000
    {"i1k": _i1k, "i21k": _i21k, "jft": _jft}[data](config, model)
    return config


def _i1k(config: ml_collections.ConfigDict, model: str) -> None:
    config.data.name = "imagenet2012"
    config.data.train_split = "train[:99%]"
    config.data.eval_split = "train[99%:]"
    config.total.epochs = 300.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.3
    config.optimizer.clip_norm = 1.0
    config.schedule.decay = "cosine"
    config.model.dropout = 0.1
    config.model.representation_size = _representation(model)


def _i21k(config: ml_collections.ConfigDict, model: str) -> None:
    config.total.epochs = _I21K[model]
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.03
    config.optimizer.clip_norm = 0.0
    config.model.dropout = 0.1
    _many_classes(config, model)


def _jft(config: ml_collections.ConfigDict, model: str) -> None:
    config.total.epochs = _TWICE.get(model, 7.0)
    config.optimizer.learning_rate = _JFT[model]
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 0.0
    _many_classes(config, model)


def _many_classes(config: ml_collections.ConfigDict, model: str) -> None:
    """What the authors say of pretraining with many classes (threads 2 and 34 of their code)."""
    config.schedule.decay = "linear"
    config.schedule.end_value = 1e-5
    config.objective.cross_entropy = "sigmoid"
    config.model.head_bias = -10.0
    config.model.representation_size = _representation(model)


def _representation(model: str) -> int:
    """The width of the model: a tanh layer before the head; a ResNet has none."""
    sizes = {"B": 768, "L": 1024, "H": 1280}
    return 0 if "x" in model else sizes[model.removeprefix("R50+")[0]]
