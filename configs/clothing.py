"""Fine-tunes a released ViT-Ti/16 on photographs of clothing, at a non-square resolution.

    python -m vit_jax train --config configs/clothing.py --workdir runs/clothing \
        --config.data.path=DIR --config.init_from=Ti_16.npz
    python -m vit_jax evaluate --workdir runs/clothing --config.data.eval_split=test

DIR holds train/, validation/ and test/, each with a folder for each of 10 classes (the CC0 dataset
"clothing-dataset-small": 3,068 / 341 / 372 photographs). The 14x14 positions of the checkpoint,
learned at 224 pixels, are interpolated to 14x12. Cost and accuracy: docs/clothing.md.
"""

import ml_collections

from vit_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    config = default_config()
    config.image_size = (224, 192)
    config.batch_size = 64
    config.total.epochs = 4.0
    config.evaluate_every.epochs = 1.0
    config.checkpoint.every.epochs = 1.0
    config.log_every.steps = 10

    config.data.source = "image_folder"
    config.data.eval_split = "validation"
    config.data.crop = "inception"
    config.data.crop_area = (0.4, 1.0)
    config.data.crop_pct = 0.95

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup.percent = 10.0
    return config
