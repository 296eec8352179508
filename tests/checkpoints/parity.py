"""Helpers of tests that compare a checkpoint's outputs with those of the original code."""

import pathlib
from typing import Any

import jax
from flax import nnx

from vit_jax.checkpoints import load
from vit_jax.models import zoo
from vit_jax.models.classifier import ViTOptions

# With the numerics of timm.
TINY = ViTOptions(
    image_size=(16, 16),
    patch_size=(4, 4),
    width=24,
    depth=2,
    mlp_dim=32,
    num_heads=3,
    num_classes=5,
    activation="gelu_erf",
)


def changed(options: ViTOptions, **changes: Any) -> Any:
    """The options with changed fields, also those that only models for pretraining have."""
    return zoo.of_parts(**vars(options) | changes)


def read(path: pathlib.Path, **how: Any) -> Any:
    """A checkpoint, typed as Any because each test knows the type of its options."""
    return load.read(path, **how)


@nnx.jit
def logits_and_features(model: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    return model(images), model.features(images)
