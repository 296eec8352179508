"""The FLOPs of training that the model asks for, without those that a compiler may add.

Only matrix products and convolutions count, and a multiply-add counts as two. The backward pass
computes one product for each operand that depends on a trained parameter: for `x @ w` two, one of
them if `x` is an image. So a step costs three forward passes, less the gradient of the images. The
thin products that LoRA's backward pass makes by itself are left out (0.6% for S/16 and rank 8).
"""

from collections.abc import Sequence
from typing import Any

from jax.extend import core

from vit_jax.models import flops


def training(program: core.Jaxpr, trained: Sequence[bool]) -> int:
    """The FLOPs of a loss and its gradient; `trained` says which inputs have gradients."""
    return 2 * _walk(program, list(trained))[0]


def _walk(program: core.Jaxpr, trained: list[bool]) -> tuple[int, list[bool]]:
    """Multiply-adds, and which outputs depend on a trained input."""
    depends = dict(zip(program.invars, trained, strict=True))

    def of(value: object) -> bool:
        return isinstance(value, core.Var) and depends.get(value, False)

    total = 0
    for equation in program.eqns:
        inputs = [of(value) for value in equation.invars]
        count, outputs = _equation(equation, inputs)
        total += count
        depends.update(zip(equation.outvars, outputs, strict=True))
    return total, [of(value) for value in program.outvars]


def _equation(equation: core.JaxprEqn, inputs: list[bool]) -> tuple[int, list[bool]]:
    if equation.primitive.name == "stop_gradient":
        return 0, [False]
    if count := flops.multiply_adds(equation):
        return count * (1 + sum(inputs[:2])), [any(inputs)] * len(equation.outvars)
    if equation.primitive.name == "cond":
        inputs = inputs[1:]  # without the number of the platform's program
    programs = list(flops.inner_programs(equation))
    if equation.primitive.name == "scan":
        return _scan(equation, programs[0], inputs)
    if len(programs) == 1 and len(programs[0].invars) == len(inputs):
        count, outputs = _walk(programs[0], inputs)
        own = equation.primitive.name.startswith("custom_vjp")  # its gradient is not in the program
        if len(outputs) == len(equation.outvars) and not own:
            return count, outputs
        return count, [any(inputs)] * len(equation.outvars)
    counts = [_walk(inner, [any(inputs)] * len(inner.invars))[0] for inner in programs]
    return max(counts, default=0), [any(inputs)] * len(equation.outvars)


def _scan(equation: core.JaxprEqn, body: core.Jaxpr, inputs: list[bool]) -> tuple[int, list[bool]]:
    """A value that is carried depends on parameters if any iteration makes it so.

    The inputs are constants, carried values and arrays with an axis of iterations; the outputs are
    carried values and arrays with that axis. So shapes tell them apart; their numbers have other
    names in each version of JAX.
    """
    carried = _without_axis(equation.outvars, body.outvars)
    constants = _without_axis(equation.invars, body.invars) - carried
    carry = slice(constants, constants + carried)
    while True:
        count, outputs = _walk(body, inputs)
        after = [a or b for a, b in zip(inputs[carry], outputs[:carried], strict=True)]
        if after == inputs[carry]:
            return count * equation.params["length"], outputs
        inputs = [*inputs[:constants], *after, *inputs[carry.stop :]]


def _without_axis(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many values have the same shape outside and inside a scan."""
    pairs = zip(outside, inside, strict=True)
    return sum(a.aval.shape == b.aval.shape for a, b in pairs)
