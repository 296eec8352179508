"""Helpers of tests that compare a checkpoint's outputs with those of the original code."""

import pathlib
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from tests.compare import assert_close
from vit_jax.checkpoints import layouts, load, surgery
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


def check_gradients(
    gradients: Any, layout: layouts.Layout, theirs: dict[str, np.ndarray], options: Any
) -> None:
    """Compares the gradients of all parameters with those of the original's arrays."""
    expected = layouts.table.read(layout.entries(options), theirs, surgery.shapes(options))
    ours = traverse_util.flatten_dict(nnx.to_pure_dict(gradients), sep="/")
    assert ours.keys() == expected.keys()
    for path, array in expected.items():
        assert_close(ours[path], array, floor=1e-3, about=path)
