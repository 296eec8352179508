"""What the peers in JAX share: modules that they import but do not use here, weights, images."""

import sys
import types
from collections.abc import Mapping
from typing import Any

import flax.training.checkpoints  # noqa: F401 - looks for TensorFlow when it is imported
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from benchmarks.twins import wire


def leave_out(*modules: str) -> None:
    """Makes these modules importable, without content: only code that is not called needs them."""
    for name in modules:
        sys.modules[name] = types.ModuleType(name)
    for name in modules:
        parent, _, child = name.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, sys.modules[name])


def nested(params: wire.Arrays) -> Any:
    """Arrays by path as the tree of a Linen model."""
    tree = {name: jnp.asarray(array) for name, array in params.items()}
    return traverse_util.unflatten_dict(tree, sep="/")


def flat(params: Any) -> Mapping[str, np.ndarray]:
    """The inverse of `nested`."""
    found = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    return {name: np.asarray(array) for name, array in found.items()}


def images(pixels: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1], by the division of these projects' pipelines."""
    return (pixels.astype(np.float32) - 127.5) / 127.5


def recorded_norm() -> optax.GradientTransformation:
    """Keeps the norm of the gradient as its state, and changes nothing."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return updates, optax.global_norm(updates)

    return optax.GradientTransformation(lambda params: jnp.zeros(()), update)
