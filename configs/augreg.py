"""AugReg: "How to train your ViT?" (arXiv 2106.10270), as big_vision trains.

    python -m vit_jax train --config configs/augreg.py:B/16-i1k --workdir gs://BUCKET/b16
    python -m vit_jax train --config configs/augreg.py:B/16-i21k-strong1 --workdir gs://BUCKET/b16 \
        --config.data.name=NAME

A variant is a model, a dataset (i1k, i21k: name your own copy) and, if wanted, the strength of the
augmentation: none, light1, light2, medium1, medium2, strong1 or strong2. Without it, big_vision's
choice for the model. On i1k, a class token without a position and a tanh layer before the head; on
i21k, average pooling. The paper also varies: --config.optimizer.weight_decay=0.03 or 0.1,
--config.model.dropout=0 or 0.1, --config.model.drop_path=0 or 0.1, and on i21k
--config.total.epochs=30.

Published accuracy on ImageNet at 384 pixels, after i21k and fine-tuning (the authors' table): L/16
85.59, B/16 85.49, S/16 83.73, B/32 83.59, S/32 79.58, Ti/16 78.22. Fine-tuning: 20,000 steps with
`configs/vit_finetune.py:imagenet` and a learning rate of 0.01 or 0.03.

What differs from big_vision: an image is flipped after RandAugment, not before.

Planned cost (2026-11-27, libtpu 0.0.42.1, predicted and never run, without evaluations): B/16-i1k
on v5e-64 (64 chips) 2.3 hours, 145 chip-hours, MFU 39%.
"""

import ml_collections

from vit_jax.config import default_config

# RandAugment's layers and magnitude, and the alpha of mixup.
STRENGTHS = {
    "none": (0, 0.0, 0.0),
    "light1": (2, 0.0, 0.0),
    "light2": (2, 10.0, 0.2),
    "medium1": (2, 15.0, 0.2),
    "medium2": (2, 15.0, 0.5),
    "strong1": (2, 20.0, 0.5),
    "strong2": (2, 20.0, 0.8),
}
# The strength for each model, on ImageNet-1k and on ImageNet-21k.
_CHOICES = {
    "Ti/16": ("light1", "none"),
    "S/32": ("medium1", "none"),
    "S/16": ("medium2", "light1"),
    "B/32": ("medium2", "light2"),
    "B/16": ("medium2", "light2"),
    "L/16": ("medium2", "medium2"),
}
_WIDTHS = {"Ti": 192, "S": 384, "B": 768, "L": 1024}
VARIANTS = tuple(f"{model}-{data}" for model in _CHOICES for data in ("i1k", "i21k"))


def get_config(variant: str = "B/16-i1k") -> ml_collections.ConfigDict:
    model, _, rest = variant.partition("-")
    data, _, strength = rest.partition("-")
    strength = strength or dict(zip(("i1k", "i21k"), _CHOICES.get(model, ()), strict=False)).get(
        data, ""
    )
    if f"{model}-{data}" not in VARIANTS or strength not in STRENGTHS:
        raise ValueError(
            f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}, with or without"
            f" -STRENGTH, one of {', '.join(STRENGTHS)}"
        )
    config = default_config()
    config.image_size = (224, 224)
    config.batch_size = 4096
    config.total.epochs = 300.0
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.model.init = "big_vision"

    config.data.source = "tfds"
    config.data.crop = "inception"
    if data == "i1k":
        config.data.name = "imagenet2012"
        config.data.train_split = "train[:99%]"
        config.data.eval_split = "train[99%:]"
        config.model.class_position = False
        config.model.representation_size = _WIDTHS[model.partition("/")[0]]  # a tanh layer
    else:
        config.model.pool = "gap"
        config.model.class_token = False
    config.model.head_bias = {"i1k": -6.9, "i21k": -10.0}[data]
    config.augment = _augment(strength)
    config.objective.cross_entropy = "sigmoid"

    config.optimizer.name = "adamw"
    config.optimizer.moment_dtype = "bfloat16"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.rate_batch = 4096
    config.optimizer.rate_rule = "none"
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 1.0
    config.schedule.warmup.steps = 10_000
    return config


def _augment(strength: str) -> tuple:
    layers, magnitude, alpha = STRENGTHS[strength]
    randaugment = {
        "name": "randaugment_big_vision",
        "layers": layers,
        "magnitude": magnitude,
    }
    return (
        *([randaugment] if layers else []),
        "flip",
        "value_range",
        *([{"name": "mixup", "alpha": alpha}] if alpha else []),
    )
