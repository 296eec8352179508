"""ONNX by `jax2onnx`: a program with its weights, for ONNX Runtime."""

import contextlib
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from vit_jax.export.program import Outputs, Program

PACKAGES = ("jax2onnx", "onnxruntime", "equinox", "onnx_ir")
REQUIREMENTS = ("onnxruntime",)  # of whoever runs the program
_LOGS = ("jax2onnx", "onnx_ir")
DTYPES = ("float32",)  # ONNX Runtime computes little else on CPUs


def check() -> None:
    """Raises ValueError if a package is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"--format onnx needs {' and '.join(missing)}, not installed: pip install vit_jax[onnx]"
            " && pip install --no-deps 'jax2onnx>=0.17.1'"
        )


def write(folder: pathlib.Path, program: Program, batches: Sequence[int]) -> dict[str, int | None]:
    """Writes a program for each batch size; without sizes, one for any.

    Returns the batch size of each program by the name of its file, None for any. Large arrays are
    in a file beside it, NAME.data. Raises ValueError if ONNX lacks an operation of the model.
    """
    with _in_one_line(program):  # it logs plugins whose packages are not installed
        from jax2onnx import to_onnx
    written: dict[str, int | None] = {}
    for batch in batches or (None,):
        size = export.symbolic_shape("batch")[0] if batch is None else batch
        images = jax.ShapeDtypeStruct(program.image_shape(size), np.uint8)
        name = "program.onnx" if batch is None else f"program_{batch}.onnx"
        with _in_one_line(program):
            to_onnx(
                _traced(program, images),
                [images],
                return_mode="file",
                output_path=str(folder / name),
                input_names=["images"],
                output_names=list(program.names()),
            )
        written[name] = batch
    return written


def loaded(folder: pathlib.Path, name: str, program: Program) -> Callable[[np.ndarray], Outputs]:
    """A program of the folder: uint8 (B, H, W, C) -> outputs.

    Raises ValueError, or the function does, if ONNX Runtime lacks an operation of the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    with _in_one_line(program):
        session = onnxruntime.InferenceSession(str(folder / name), options)
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> Outputs:
        with _in_one_line(program):
            return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run


def _traced(program: Program, images: jax.ShapeDtypeStruct) -> Callable[..., Any]:
    """The program with its weights, as the operations that JAX traced.

    The library replaces some layers by its own, and max pooling was wrong then; here it sees no
    layers.
    """

    def outputs(images: jax.Array) -> tuple[Any, ...]:
        found = program(program.arrays, images)
        return tuple(found[name] for name in program.names())

    compute = core.jaxpr_as_fun(jax.make_jaxpr(outputs)(images))
    return lambda images: tuple(compute(images))


@contextlib.contextmanager
def _in_one_line(program: Program) -> Iterator[None]:
    """Makes an error of the libraries a ValueError, and silences their logs."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _LOGS}
    for log in levels:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # it raises many kinds for what it lacks
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(
            f"{program.options.kind} cannot be written as ONNX: {reason}: give a fixed --batch, or"
            " use --format stablehlo"
        ) from error
    finally:
        for log, level in levels.items():
            log.setLevel(level)
