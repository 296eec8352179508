"""Max pooling of images, whose gradient on a CPU is several times as fast as XLA's own.

Shapes: B batch, h and w rows and columns, C channels.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

Pads = tuple[int, int]  # before and after an axis


def max_pool(x: jax.Array, window: int, *, stride: int, pads: Sequence[Pads]) -> jax.Array:
    """The largest value (B, h', w', C) of each square window of x (B, h, w, C).

    `pads` are the places before and after the rows and the columns; they are never the largest.
    Of equal values, the gradient goes to the first, row by row, as in PyTorch.
    """
    rows, columns = pads
    pooled, with_own_gradient = (
        functools.partial(pool, window, stride, (rows, columns))
        for pool in (_pooled, _with_own_gradient)
    )
    return jax.lax.platform_dependent(x, cpu=with_own_gradient, default=pooled)


def _pooled(window: int, stride: int, pads: tuple[Pads, Pads], x: jax.Array) -> jax.Array:
    return nnx.max_pool(x, (window, window), strides=(stride, stride), padding=pads)


_with_own_gradient = jax.custom_vjp(_pooled, nondiff_argnums=(0, 1, 2))


def _forward(
    window: int, stride: int, pads: tuple[Pads, Pads], x: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = _pooled(window, stride, pads, x)
    return y, (x, y)


def _backward(
    window: int,
    stride: int,
    pads: tuple[Pads, Pads],
    kept: tuple[jax.Array, jax.Array],
    gradient: jax.Array,
) -> tuple[jax.Array]:
    """The gradient, as if columns were pooled first, and then rows.

    So the first of equal values is in the first row that has it. XLA's own gradient writes the
    place of each value to an array, and pools values and places.
    """
    x, y = kept
    along_columns = functools.partial(_slices, axis=2, window=window, stride=stride, pads=pads[1])
    along_rows = functools.partial(_slices, axis=1, window=window, stride=stride, pads=pads[0])
    columns = functools.reduce(jnp.maximum, along_columns(x))
    gradient = _spread(gradient, y, columns, along_rows(columns), 1, stride, pads[0])
    return (_spread(gradient, columns, x, along_columns(x), 2, stride, pads[1]),)


_with_own_gradient.defvjp(_forward, _backward)


def _spread(
    gradient: jax.Array,
    y: jax.Array,
    x: jax.Array,
    slices: list[jax.Array],
    axis: int,
    stride: int,
    pads: Pads,
) -> jax.Array:
    """The gradient of `x`, whose `slices` are pooled to `y`, from that of `y`."""
    taken, total = jnp.zeros(y.shape, bool), jnp.zeros_like(x)
    for place, values in enumerate(slices):
        first = (values == y) & ~taken
        taken |= first
        before = place - pads[0]
        after = x.shape[axis] - before - stride * (y.shape[axis] - 1) - 1
        padding = _along(axis, (before, after, stride - 1), x.ndim)
        given = jnp.where(first, gradient, jnp.zeros_like(gradient))
        total += jax.lax.pad(given, jnp.zeros((), x.dtype), padding)
    return total


def _slices(x: jax.Array, *, axis: int, window: int, stride: int, pads: Pads) -> list[jax.Array]:
    """For each place of a window, the values at this place in all windows along one axis."""
    x = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), _along(axis, (*pads, 0), x.ndim))
    last = x.shape[axis] - window
    return [
        jax.lax.slice_in_dim(x, place, place + last + 1, stride, axis) for place in range(window)
    ]


def _along(axis: int, padding: tuple[int, int, int], ndim: int) -> list[tuple[int, int, int]]:
    """Padding of one axis for `jax.lax.pad`."""
    return [padding if i == axis else (0, 0, 0) for i in range(ndim)]
