"""Floating-point operations of the forward pass of one image; a multiply-add counts as two."""

import math
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx
from jax.extend import core

from vit_jax.models import zoo


def forward(options: zoo.Options) -> int:
    """Counts the operations of matrix products and convolutions, without elementwise operations.

    The count comes from the traced program, so it works for every model. Multiplications with the
    padding of a convolution are included.
    """
    graphdef, params = zoo.abstract(options)
    image = jax.ShapeDtypeStruct((1, *options.image_size, options.channels), "float32")
    program = jax.make_jaxpr(lambda params, x: nnx.merge(graphdef, params)(x))(params, image)
    return 2 * _multiply_adds(program.jaxpr)


def _multiply_adds(program: core.Jaxpr) -> int:
    total = 0
    for equation in program.eqns:
        match equation.primitive.name:
            case "dot_general":
                (contracted, _), _ = equation.params["dimension_numbers"]
                left = _shape(equation.invars[0])
                each = math.prod(left[axis] for axis in contracted)
                total += each * math.prod(_shape(equation.outvars[0]))
            case "conv_general_dilated":
                kernel = _shape(equation.invars[1])
                features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
                total += math.prod(kernel) // features * math.prod(_shape(equation.outvars[0]))
            case _:
                times = equation.params.get("length", 1)  # iterations of a scan
                total += times * sum(map(_multiply_adds, _programs(equation.params)))
    return total


def _shape(value: Any) -> tuple[int, ...]:
    return value.aval.shape


def _programs(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    """The inner programs of an operation such as a scan or a nested jit."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
