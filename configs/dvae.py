"""A discrete VAE: the tokenizer of BEiT, trained on images without labels.

    python -m vit_jax train --config configs/dvae.py --workdir runs/dvae
    python -m vit_jax figures --workdir runs/dvae

A small model on the embedded Fashion-MNIST images: 7x7 visual tokens of a codebook of 128. The run
is evaluated by the squared error of held-out images that are rebuilt from their most likely tokens,
by the perplexity of the codebook and by the share of its tokens that are used: 0.0196, 26 and 64%.
The command `figures` draws the rebuilt images and the use of the codebook. With a tenth of the
weight of the divergence the error is 0.0184, but only 9% of the tokens are used.

`configs/dvae.py:dalle` has the hyper-parameters of DALL-E's tokenizer, "Zero-Shot Text-to-Image
Generation" (arXiv 2102.12092, appendix A.2), for any images of at least 256 pixels: 8192 tokens,
batch 512, 3,000,000 steps. The paper trained it on 250 million images with 64 V100 (16 GB), and
states no error.

    python -m vit_jax train --config configs/dvae.py:dalle --workdir gs://BUCKET/dvae \
        --config.data.name=imagenet2012

What differs from the paper: its learning rate reaches its end after 1,200,000 steps, here at the
end of the run; images are cropped by our `inception` crop of at least half of the image; schedules
of the objective are stated in images, as 512 times the paper's steps.

Planned cost (2026-11-28, libtpu 0.0.42.1, predicted and never run, without evaluations): dalle on
v5e-64 (64 chips) 156.7 hours, 10,026 chip-hours, MFU 37%.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("small", "dalle")


def get_config(variant: str = "small") -> ml_collections.ConfigDict:
    config = default_config()
    config.objective.name = "dvae"
    config.model.name = "DALL-E-dVAE"
    config.evaluators.codes = {"kind": "codebook"}
    if variant == "small":
        _small(config)
    elif variant == "dalle":
        _dalle(config)
    else:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    return config


def _small(config: ml_collections.ConfigDict) -> None:
    config.image_size = (28, 28)
    config.batch_size = 128
    config.total.steps = 600
    config.evaluate_every.percent = 25.0
    config.eval_batch_size = 500
    config.log_every.steps = 50

    config.model.hidden = 16
    config.model.groups = 3
    config.model.blocks = 1
    config.model.vocabulary = 128
    config.model.code_width = 32

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0

    # Grey images with exact black have no finite likelihood: the squared error is used instead.
    config.objective.reconstruction = "l2"
    config.objective.kl_weight = 0.1
    config.objective.kl_examples = 20_000
    config.objective.temperature_examples = 60_000

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 1e-4
    config.schedule.warmup.percent = 5.0


def _dalle(config: ml_collections.ConfigDict) -> None:
    config.image_size = (256, 256)
    config.batch_size = 512
    config.total.steps = 3_000_000
    config.evaluate_every.steps = 50_000
    config.ema = 0.999
    config.model.dtype = "bfloat16"

    config.data.source = "tfds"  # your copy: the paper's images are not public
    config.data.crop = "inception"
    config.data.crop_area = (0.5, 1.0)
    config.data.interpolation = "bicubic_antialias"

    config.objective.reconstruction = "logit_laplace"
    config.objective.kl_weight = 6.6
    config.objective.kl_examples = 5_000 * 512
    config.objective.temperature = 1 / 16
    config.objective.temperature_examples = 150_000 * 512

    config.optimizer.learning_rate = 1e-4
    config.optimizer.rate_batch = 512
    config.optimizer.rate_rule = "none"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.clip_norm = 0.0
    config.schedule.decay = "cosine"
    config.schedule.end_value = 1.25e-6
