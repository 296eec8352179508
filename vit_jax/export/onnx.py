"""ONNX by `jax2onnx`: a program with its weights, for ONNX Runtime."""

import contextlib
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from vit_jax.export.program import Outputs, Variant

PACKAGES = ("jax2onnx", "onnxruntime")  # that write and run the programs
_NEEDED = (*PACKAGES, "equinox", "onnx_ir")
REQUIREMENTS = ("onnxruntime",)  # of whoever runs the program
_LOGS = ("jax2onnx", "onnx_ir")
STORED = ("float32", "int8")  # ONNX Runtime computes little in bfloat16 on CPUs
SUFFIX = ".onnx"


def check() -> None:
    """Raises ValueError if a package is missing."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"--format onnx needs {' and '.join(missing)}, not installed: pip install vit_jax[onnx]"
            " && pip install --no-deps 'jax2onnx>=0.17.1'"
        )


def write(folder: pathlib.Path, variants: Sequence[Variant]) -> None:
    """Writes the programs, each with its weights: large arrays are beside it, in NAME.data.

    Raises ValueError if ONNX lacks an operation of the model.
    """
    with _in_one_line(variants[0]):  # it logs plugins whose packages are not installed
        from jax2onnx import to_onnx
    for variant in variants:
        with _in_one_line(variant):
            to_onnx(
                _traced(variant),
                [variant.images],
                return_mode="file",
                output_path=str(folder / variant.name),
                input_names=["images"],
                output_names=list(variant.program.names()),
            )


def loaded(folder: pathlib.Path, variant: Variant) -> Callable[[np.ndarray], Outputs]:
    """A program of the folder: uint8 (B, H, W, C) -> outputs.

    Raises ValueError, or the function does, if ONNX Runtime lacks an operation of the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised
    with _in_one_line(variant):
        session = onnxruntime.InferenceSession(str(folder / variant.name), options)
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> Outputs:
        with _in_one_line(variant):
            return dict(zip(names, session.run(None, {"images": images}), strict=True))

    return run


def _traced(variant: Variant) -> Callable[..., Any]:
    """The program with its weights, as the operations that JAX traced.

    The library replaces some layers by its own, and max pooling was wrong then; here it sees no
    layers.
    """
    program = variant.program

    def outputs(images: jax.Array) -> tuple[Any, ...]:
        found = program(program.arrays, images)
        return tuple(found[name] for name in program.names())

    compute = core.jaxpr_as_fun(jax.make_jaxpr(outputs)(variant.images))
    return lambda images: tuple(compute(images))


@contextlib.contextmanager
def _in_one_line(variant: Variant) -> Iterator[None]:
    """Makes an error of the libraries a ValueError, and silences their logs."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in _LOGS}
    for log in levels:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # it raises many kinds for what it lacks
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        fixed = "give a fixed --batch, or " if variant.batch is None else ""
        raise ValueError(
            f"{variant.program.options.kind} cannot be written as ONNX: {reason}:"
            f" {fixed}use --format stablehlo"
        ) from error
    finally:
        for log, level in levels.items():
            log.setLevel(level)
