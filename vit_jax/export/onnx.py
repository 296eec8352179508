"""ONNX by `jax2onnx`: a program with its weights, for ONNX Runtime."""

import contextlib
import functools
import importlib.util
import itertools
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
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

    The library replaces some layers by its own, which compute something else; here it sees none.
    """
    program = variant.program

    def outputs(images: jax.Array) -> tuple[Any, ...]:
        found = program(program.arrays, images)
        return tuple(found[name] for name in program.names())

    closed = jax.make_jaxpr(outputs)(variant.images)
    return lambda images: tuple(_computed(closed, images))


def _computed(closed: core.ClosedJaxpr, *inputs: jax.Array) -> list[Any]:
    """The outputs of traced operations, some of which are computed by others.

    The library writes max pooling with a window over all four axes, which ONNX Runtime refuses, and
    padding of a fixed batch only. Where each platform has operations of its own, it gets the
    general ones. Operations inside a scan stay as they are.
    """
    values: dict[core.Var, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= zip(closed.jaxpr.invars, inputs, strict=True)

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    found: list[Any]
    for equation in closed.jaxpr.eqns:
        given = list(map(read, equation.invars))
        if equation.primitive.name == "reduce_window_max":
            found = [_largest_of_slices(*given, **equation.params)]
        elif equation.primitive.name == "pad":
            found = [_padded(*given, **equation.params)]
        elif equation.primitive.name == "jit":
            found = _computed(equation.params["jaxpr"], *given)
        elif equation.primitive.name == "platform_index":
            found = [None]
        elif "branches_platforms" in equation.params:
            found = _computed(equation.params["branches"][-1], *given[1:])
        else:
            found = core.jaxpr_as_fun(_alone(closed.jaxpr, equation))(*given)
        values |= zip(equation.outvars, found, strict=True)
    return list(map(read, closed.jaxpr.outvars))


def _padded(
    x: jax.Array, value: jax.Array, padding_config: Sequence[tuple[int, int, int]]
) -> jax.Array:
    """`jax.lax.pad` by concatenation. Raises ValueError for padding between elements or below 0."""
    for axis, (before, after, interior) in enumerate(padding_config):
        if interior or before < 0 or after < 0:
            raise ValueError("it pads between elements, or cuts them off")
        parts = [
            jax.lax.broadcast(value, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
            for size in (before, after)
        ]
        kept = [part for part in (parts[0], x, parts[1]) if part.shape[axis]]
        x = jax.lax.concatenate(kept, axis)
    return x


def _alone(whole: core.Jaxpr, equation: core.JaxprEqn) -> core.ClosedJaxpr:
    """An operation with a variable for each of its inputs."""
    inputs = [core.Var(variable.aval) for variable in equation.invars]
    outputs = [core.Var(variable.aval) for variable in equation.outvars]
    equation = equation.replace(invars=[*inputs], outvars=outputs)
    alone = core.Jaxpr((), inputs, outputs, [equation], debug_info=whole.debug_info)
    return core.ClosedJaxpr(alone, ())


def _largest_of_slices(
    x: jax.Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **_: Any,
) -> jax.Array:
    """Max pooling (B, h, w, C) -> (B, h', w', C): a slice for each place in the window."""
    padded = _padded(x, jnp.asarray(-jnp.inf, x.dtype), [(*pads, 0) for pads in padding])
    slices = []
    for place in itertools.product(*map(range, window_dimensions)):
        ends = [
            size - window + start + 1
            for size, window, start in zip(padded.shape, window_dimensions, place, strict=True)
        ]
        slices.append(jax.lax.slice(padded, place, ends, window_strides))
    return functools.reduce(jnp.maximum, slices)


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
