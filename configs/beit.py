"""BEiT: pretraining without labels, by visual tokens of hidden patches.

    python -m vit_jax train --config configs/dvae.py --workdir runs/dvae
    python -m vit_jax train --config configs/beit.py --workdir runs/beit \
        --config.objective.tokenizer=runs/dvae

A small model on the embedded Fashion-MNIST images: up to 19 of its 49 patches of 4x4 pixels are
hidden in blocks, and their visual tokens predicted. The tokens are those of a discrete VAE that
`configs/dvae.py` trains. Then fine-tune it:

    python -m vit_jax train --config configs/finetune.py --workdir runs/beit-finetuned \
        --config.init_from=runs/beit --config.image_size=28 --config.model.pool=gap

The other variants are the pretraining of "BEiT: BERT Pre-Training of Image Transformers" (arXiv
2106.08254) and its code: 800 epochs of ImageNet-1k (i1k), or 150 of ImageNet-22k (i22k: name your
own copy), at 224 pixels in batches of 2048. The tokenizer is DALL-E's encoder.pkl, or your own
discrete VAE with 8192 tokens.

    python -m vit_jax train --config configs/beit.py:B/16-i1k --workdir gs://BUCKET/beit-b16 \
        --config.objective.tokenizer=encoder.pkl

Published accuracy after fine-tuning with `configs/beit_finetune.py`: i1k B/16 83.2, L/16 85.2 (the
paper, table 1); i22k B/16 83.7, L/16 86.0 (the authors' README). The paper's 800 epochs of B/16
took five days on 16 V100 (32 GB).

What differs from the original: see `objectives/beit.py` for the images of the tokenizer. The
colours of the crop are jittered; the released code jitters those of the whole image before it
crops.
"""

import ml_collections

from vit_jax.config import default_config

# Epochs; warm-up.
_DATA = {"i1k": (800.0, {"epochs": 10.0}), "i22k": (150.0, {"steps": 10_000})}
_MODELS = ("B/16", "L/16")
VARIANTS = ("small", *(f"{model}-{data}" for model in _MODELS for data in _DATA))


def get_config(variant: str = "small") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.objective.name = "beit"
    config.optimizer.weight_decay = 0.05
    # Of what has several dimensions, only the class token does not decay.
    config.optimizer.decay_mask = ("kernel$", "encoder/mask$", "relative_bias$")
    if variant == "small":
        _small(config)
    else:
        _paper(config, *variant.split("-"))
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    config.image_size = (28, 28)
    config.batch_size = 128
    config.total.epochs = 20.0
    config.evaluate_every.percent = 20.0
    config.eval_batch_size = 500
    config.log_every.steps = 100

    config.model.name = "BEiT-pretrain-Ti/4"
    config.model.width = 96
    config.model.depth = 4
    config.model.mlp_dim = 384
    config.model.num_heads = 3
    config.model.layer_scale = 0.1
    config.model.init = "xavier"  # BEiT's initial values are too small for this width
    config.model.mim_classes = 128  # tokens of `configs/dvae.py`

    config.objective.hidden = 19
    config.objective.smallest_block = 4

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0
    config.data.mean = (0.286, 0.286, 0.286)  # of the training images
    config.data.std = (0.353, 0.353, 0.353)

    config.evaluators.near = {"kind": "knn", "k": 20}
    config.optimizer.learning_rate = 1.5e-3
    config.schedule.warmup.percent = 10.0


def _paper(config: ml_collections.ConfigDict, model: str, data: str) -> None:
    epochs, warmup = _DATA[data]
    config.image_size = (224, 224)
    config.batch_size = 2048
    config.total.epochs = epochs
    config.evaluate_every.epochs = 10.0

    config.model.name = f"BEiT-pretrain-{model}"
    config.model.dtype = "bfloat16"
    config.model.drop_path = 0.1

    config.objective.hidden = 75
    config.objective.smallest_block = 16

    config.data.source = "tfds"
    if data == "i1k":
        config.data.name = "imagenet2012"
        config.data.mean = (0.485, 0.456, 0.406)
        config.data.std = (0.229, 0.224, 0.225)
    config.data.crop = "random_resized"
    config.data.crop_area = (0.08, 1.0)
    config.data.interpolation = "bicubic_antialias"
    config.data.eval_interpolation = "bicubic_antialias"
    config.augment = ("colour_jitter", "flip", "value_range")

    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.rate_batch = 2048
    config.optimizer.rate_rule = "none"
    config.optimizer.b2 = 0.98
    config.optimizer.clip_norm = 3.0
    config.schedule.warmup = warmup
    config.schedule.end_value = 1e-5
