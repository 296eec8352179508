"""The cost of a model: parameters, and the operations of a forward pass of one image.

A multiply-add counts as two operations.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx
from jax.extend import core

from vit_jax.models import attention_choice, batch_norm, zoo


def forward(options: zoo.Options) -> int:
    """Counts the operations of matrix products and convolutions, without elementwise operations.

    The count comes from the traced program, so it works for every model. Multiplications with the
    padding of a convolution are included.
    """
    graphdef, params = zoo.abstract(attention_choice.plain(options))
    image = jax.ShapeDtypeStruct((1, *options.image_size, options.channels), "float32")
    program = jax.make_jaxpr(lambda params, x: nnx.merge(graphdef, params)(x))(params, image)
    return of_program(program.jaxpr)


def parameters(options: zoo.Options) -> int:
    """The number of parameters, without the running averages of batch norm."""
    graphdef, params = zoo.abstract(options)
    averages = batch_norm.statistics(nnx.merge(graphdef, params))
    every, untrained = (
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for tree in (params, averages)
    )
    return every - untrained


def of_program(program: core.Jaxpr) -> int:
    """The operations of a traced program, counted as in `forward`."""
    total = 0
    for equation in program.eqns:
        times = equation.params.get("length", 1)  # iterations of a scan
        total += 2 * multiply_adds(equation)
        total += times * sum(map(of_program, inner_programs(equation)))
    return total


def multiply_adds(equation: core.JaxprEqn) -> int:
    """The multiply-adds of a matrix product or convolution; 0 for other operations."""
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = _shape(equation.invars[0])
            each = math.prod(left[axis] for axis in contracted)
            return each * math.prod(_shape(equation.outvars[0]))
        case "conv_general_dilated":
            kernel = _shape(equation.invars[1])
            features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            return math.prod(kernel) // features * math.prod(_shape(equation.outvars[0]))
        case _:
            return 0


def _shape(value: Any) -> tuple[int, ...]:
    return value.aval.shape


def inner_programs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The inner programs of an operation such as a scan or a nested jit.

    Where each platform has a program of its own, only the general one counts: it comes last.
    """
    if equation.primitive.name == "cond":
        yield equation.params["branches"][-1].jaxpr
    for value in equation.params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
