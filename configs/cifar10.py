"""CIFAR-10 from scratch: small Vision Transformers against a ResNet-18, with the same budget.

    python -m vit_jax train --config configs/cifar10.py:patch4 --workdir runs/cifar-patch4 \
        --config.data.path=DIR

DIR holds train/ and test/, each with a folder for each of the 10 classes. The variants are patch4
(width 192), patch2 (width 96), both 12 layers deep, and resnet18, at 32 pixels; patch16 and patch32
(width 384) see the images enlarged to 224 pixels. All train for 20 epochs with Adam at a constant
rate of 1e-4, batch 128, shifts of up to 4 pixels and flips. Results and cost: docs/results.md.
"""

from typing import Any

import ml_collections

from vit_jax.config import default_config

# image size, name of the model, fields of the model
_MODELS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "patch4": (32, "Ti/4", {}),
    "patch2": (32, "Ti/2", {"width": 96, "mlp_dim": 384, "num_heads": 3}),
    "resnet18": (32, "ResNet-18", {"root": "cifar"}),
    "patch16": (224, "S/16", {}),
    "patch32": (224, "S/32", {}),
}
VARIANTS = tuple(_MODELS)


def get_config(variant: str = "patch4") -> ml_collections.ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"no variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    side, name, fields = _MODELS[variant]
    config = default_config()
    config.image_size = (side, side)
    config.batch_size = 128
    config.total.epochs = 20.0
    config.evaluate_every.epochs = 5.0
    config.eval_batch_size = 1000
    config.log_every.steps = 100

    config.model.name = name
    for field, value in fields.items():
        config.model[field] = value
    if name != "ResNet-18":
        config.model.remat = "none"
        config.model.unroll = 12  # the operations are small: one program of all layers is faster

    config.data.source = "image_folder"
    config.data.crop = "shift"
    config.data.shift = side // 8
    config.data.crop_pct = 1.0
    config.data.mean = (0.4914, 0.4822, 0.4465)  # of the training images
    config.data.std = (0.2470, 0.2435, 0.2616)

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.clip_norm = 0.0
    config.schedule.decay = "constant"
    return config
