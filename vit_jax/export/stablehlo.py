"""StableHLO by `jax.export`: a program for CPUs, GPUs and TPUs, and its weights in another file."""

import importlib.util
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from vit_jax.checkpoints import exported
from vit_jax.export import weights
from vit_jax.export.program import Outputs, Variant

PLATFORMS = ("cpu", "cuda", "tpu")
REQUIREMENTS = ("jax", "flatbuffers", "safetensors")  # of whoever runs the program
PACKAGES = ()  # that write and run the programs, besides JAX
STORED = ("float32", "bfloat16", "int8")
SUFFIX = ".stablehlo"


def check() -> None:
    """Raises ValueError if a package is missing."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(
            "--format stablehlo needs flatbuffers, which is not installed:"
            " pip install vit_jax[export]"
        )


def write(folder: pathlib.Path, variants: Sequence[Variant]) -> None:
    """Writes the programs, and the weights that they share.

    A program takes the weights as a dict from name to array, so its file is small whatever the size
    of the model.
    """
    arrays = variants[0].program.arrays
    weights.write(folder / exported.WEIGHTS, arrays)
    shapes = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in arrays.items()
    }
    for variant in variants:
        compute = export.export(jax.jit(variant.program), platforms=PLATFORMS)
        (folder / variant.name).write_bytes(compute(shapes, variant.images).serialize())


def loaded(folder: pathlib.Path, variant: Variant) -> Callable[[np.ndarray], Outputs]:
    """A program of the folder with its weights: uint8 (B, H, W, C) -> outputs on the host."""
    program = export.deserialize(bytearray((folder / variant.name).read_bytes()))
    compute: Any = jax.jit(program.call)
    arrays = jax.device_put(weights.read(folder / exported.WEIGHTS))
    return lambda images: jax.device_get(compute(arrays, images))
