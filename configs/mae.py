"""A small masked autoencoder on the embedded Fashion-MNIST images: pretraining without labels.

    python -m vit_jax train --config configs/mae.py --workdir runs/mae

An image has 49 patches of 4x4 pixels, and the encoder sees 12 of them. The run is evaluated by the
error of the predicted pixels in hidden patches of held-out images, and by a nearest-neighbour
classifier on the encoder's features. Then fine-tune it:

    python -m vit_jax train --config configs/finetune.py --workdir runs/mae-finetuned \
        --config.init_from=runs/mae --config.image_size=28
"""

import ml_collections

from vit_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    config = default_config()
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
    config.model.decoder = {"width": 64, "depth": 2, "mlp_dim": 256, "num_heads": 4}

    config.data.source = "embedded"
    config.data.crop = "shift"
    config.data.shift = 1
    config.data.crop_pct = 1.0
    config.data.mean = (0.286, 0.286, 0.286)  # of the training images
    config.data.std = (0.353, 0.353, 0.353)

    config.objective.name = "mae"
    config.objective.mask_ratio = 0.75
    config.evaluators.near = {"kind": "knn", "k": 20}

    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup.percent = 10.0
    return config
