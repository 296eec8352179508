"""Ablations of the ViT paper on a small folder of images: positions, pooling, hybrid and ResNet.

    python -m vit_jax train --config configs/ablation.py:token --workdir runs/ablation \
        --config.data.path=DIR

DIR holds train/ and val/ or test/, each with a folder for each class, of images with 64 pixels (a
part of Tiny ImageNet). The variants are token and gap (6 blocks of width 192 on 64 patches of 8x8
pixels), hybrid (the same blocks on the 64 outputs of a small ResNet) and bit (a ResNet-26). All
have about the same FLOPs, and train for 30 epochs with AdamW, batch 128, crops of at least 30% of
the image and flips. The paper's ablations are appendix D.3 (pooling) and D.4 (positions). Other
positions:

    --config.model.position=learned_2d --config.model.position_at=every_block

Results and cost: docs/results.md.
"""

import ml_collections

from vit_jax.config import default_config

VARIANTS = ("token", "gap", "hybrid", "bit")


def get_config(variant: str = "token") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    config = default_config()
    config.image_size = (64, 64)
    config.batch_size = 128
    config.total.epochs = 30.0
    config.evaluate_every.percent = 25.0
    config.eval_batch_size = 500
    config.log_every.steps = 100

    if variant == "bit":
        config.model.name = "R50x1"
        config.model.stem = {"num_layers": (2, 2, 2, 2)}
    else:
        config.model.name = "Ti/8"
        config.model.depth = 6
        config.model.pool = "gap" if variant == "gap" else "token"
        config.model.remat = "none"
        config.model.unroll = 6  # the operations are small: one program of all layers is faster
    if variant == "hybrid":
        config.model.patch_size = (1, 1)
        config.model.stem = {"num_layers": (2, 2), "root_width": 32}

    config.data.source = "image_folder"
    config.data.crop = "inception"
    config.data.crop_area = (0.3, 1.0)
    config.data.crop_pct = 1.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)

    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup.percent = 10.0
    return config
