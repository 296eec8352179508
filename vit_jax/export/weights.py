"""The arrays of an exported model: as they are stored, and as its program computes with them."""

import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

Kind = Literal["float32", "bfloat16"]


def stored(params: Mapping[str, np.ndarray], *, kind: Kind) -> dict[str, np.ndarray]:
    """The arrays to store for float32 parameters, by path.

    In bfloat16 are the kernels that a model of that dtype rounds anyway, so that storing them loses
    nothing. Norms, biases, positions and the head, which are computed in float32, stay float32.
    """
    return {path: _stored(path, np.asarray(array), kind) for path, array in params.items()}


def used(arrays: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The float32 parameters of stored arrays, by path."""
    return {path: jnp.asarray(array).astype(jnp.float32) for path, array in arrays.items()}


def write(path: os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a safetensors file."""
    safetensors_numpy.save_file(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()},
        path,
    )


def read(path: os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file that `write` wrote."""
    found: dict[str, np.ndarray] = safetensors_numpy.load_file(path)
    return found


def _stored(path: str, array: np.ndarray, kind: Kind) -> np.ndarray:
    rounded = kind == "bfloat16" and path.endswith("kernel") and not path.startswith("head/")
    return array.astype(jnp.bfloat16 if rounded else np.float32)
