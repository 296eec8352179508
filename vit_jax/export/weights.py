"""The file of the arrays of an exported model."""

import os
from collections.abc import Mapping

import numpy as np
from safetensors import numpy as safetensors_numpy


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
