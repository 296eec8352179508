"""A small ViT on the embedded Fashion-MNIST images: minutes on two CPU cores.

    python -m vit_jax train --config configs/quickstart.py --workdir runs/quickstart

The model has 316k parameters and 16 tokens. It classifies 84% of the held-out images correctly
after about a minute. Then fine-tune it at 35 pixels with `configs/finetune.py`.
"""

import ml_collections

from vit_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    config = default_config()
    config.image_size = (28, 28)
    config.batch_size = 64
    config.total.epochs = 7.0
    config.evaluate_every.percent = 20.0
    config.eval_batch_size = 500
    config.log_every.steps = 250

    config.model.name = "Ti/7"
    config.model.width = 96
    config.model.depth = 4
    config.model.mlp_dim = 192
    config.model.num_heads = 3
    config.model.pool = "gap"
    config.model.remat = "full"

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0
    config.data.mean = (0.286, 0.286, 0.286)  # of the training images
    config.data.std = (0.353, 0.353, 0.353)

    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup.percent = 10.0
    return config
