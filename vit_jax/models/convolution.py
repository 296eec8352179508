"""Convolutions of images, which on a CPU are matrix products where that is faster.

Shapes: B batch, h and w rows and columns, C channels of the input, D of the output.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

Padding = Literal["SAME"] | Sequence[tuple[int, int]]
Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def convolve(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding = "SAME", groups: int = 1
) -> jax.Array:
    """The convolution (B, h', w', D) of x (B, h, w, C) by a kernel (height, width, C / groups, D).

    `padding` is "SAME" or the zeros before and after the rows and the columns. The output has the
    dtype of both inputs.
    """
    sides, strides = kernel.shape[:2], (stride, stride)
    pads = padding
    if isinstance(pads, str):
        pads = jax.lax.padtype_to_pads(x.shape[1:3], sides, strides, pads)
    plain = functools.partial(_plain, stride=stride, pads=pads, groups=groups)
    if groups > 1 or not _better_as_product(x, sides, stride, pads):
        return plain(x, kernel)
    product = functools.partial(_product, stride=stride, pads=pads)
    if math.prod(sides) == 1 < stride:
        # The projections of ResNets. XLA runs a network of convolutions in one call, which the
        # slices of a product would break, so only their gradients gain.
        on_cpu = _with_gradient_of(plain, product)
    else:
        on_cpu = product
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _with_gradient_of(function: Convolution, other: Convolution) -> Convolution:
    """A function with the gradient of another one that computes the same."""
    combined = jax.custom_vjp(function)
    combined.defvjp(
        lambda x, kernel: (function(x, kernel), (x, kernel)),
        lambda kept, gradient: jax.vjp(other, *kept)[1](gradient),
    )
    return combined


def _plain(
    x: jax.Array, kernel: jax.Array, *, stride: int, pads: Sequence[tuple[int, int]], groups: int
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _better_as_product(
    x: jax.Array, sides: Sequence[int], stride: int, pads: Sequence[tuple[int, int]]
) -> bool:
    """Whether a CPU convolves faster by a matrix product, forward and backward.

    XLA's gradient of a kernel with one place runs at a tenth of the rate of a product. It lets
    input and kernel of a convolution, or of its gradient, change places where the kernel has more
    places than the image, and has no fast code for the outcome: it takes 50 times as long.
    """
    places = math.prod(
        (size + sum(pad) - side) // stride + 1
        for size, side, pad in zip(x.shape[1:3], sides, pads, strict=True)
    )
    return math.prod(sides) == 1 or places < math.prod(sides)


def _product(
    x: jax.Array, kernel: jax.Array, *, stride: int, pads: Sequence[tuple[int, int]]
) -> jax.Array:
    """The convolution as a product of the patches of the image (B, h', w', height width C)."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    height, width, _, outputs = kernel.shape
    ends = x.shape[1] - height + 1, x.shape[2] - width + 1
    patches = [
        x[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
        for row in range(height)
        for column in range(width)
    ]
    weights = kernel.reshape(-1, outputs)
    return jnp.einsum("bhwc,cd->bhwd", jnp.concatenate(patches, axis=-1), weights)
