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
from vit_jax.export.program import Outputs, Program

PLATFORMS = ("cpu", "cuda", "tpu")
REQUIREMENTS = ("jax", "flatbuffers", "safetensors")  # of whoever runs the program
DTYPES = ("float32", "bfloat16")


def check() -> None:
    """Raises ValueError if a package is missing."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise ValueError(
            "--format stablehlo needs flatbuffers, which is not installed:"
            " pip install vit_jax[export]"
        )


def write(folder: pathlib.Path, program: Program, batches: Sequence[int]) -> dict[str, int | None]:
    """Writes the weights, and a program for each batch size; without sizes, one for any.

    Returns the batch size of each program by the name of its file, None for any. The program takes
    the weights as a dict from path to array, so its file is small whatever the size of the model.
    """
    weights.write(folder / exported.WEIGHTS, program.arrays)
    shapes = {
        path: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for path, array in program.arrays.items()
    }
    written: dict[str, int | None] = {}
    for batch in batches or (None,):
        size = export.symbolic_shape("batch")[0] if batch is None else batch
        images = jax.ShapeDtypeStruct(program.image_shape(size), np.uint8)
        lowered = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, images)
        name = "program.stablehlo" if batch is None else f"program_{batch}.stablehlo"
        (folder / name).write_bytes(lowered.serialize())
        written[name] = batch
    return written


def loaded(folder: pathlib.Path, name: str, _: Program) -> Callable[[np.ndarray], Outputs]:
    """A program of the folder with its weights: uint8 (B, H, W, C) -> outputs on the host."""
    program = export.deserialize(bytearray((folder / name).read_bytes()))
    compute: Any = jax.jit(program.call)
    arrays = jax.device_put(weights.read(folder / exported.WEIGHTS))
    return lambda images: jax.device_get(compute(arrays, images))
