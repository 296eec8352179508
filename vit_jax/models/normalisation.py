"""LayerNorm and GroupNorm with backward passes of their own.

Autodiff would keep several arrays of the size of the input and read them in several passes. These
backward passes read the input and the gradient, and keep two numbers for each token or group.

Shapes: ... any leading axes, D width; B batch, C channels, G groups.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.remat import STATISTICS, named
from vit_jax.models.sharding import LANES

_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # input, mean, 1/deviation, scale


class LayerNorm(nnx.LayerNorm):
    """LayerNorm over the last axis, with float32 statistics and parameters."""

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        assert mask is None and self.scale is not None and self.bias is not None
        x = x.astype(self.dtype)
        return normalise(x, self.scale[...], self.bias[...], self.epsilon)


def layer_norm(width: int, eps: float, dtype: str, rngs: nnx.Rngs) -> LayerNorm:
    """LayerNorm with float32 statistics and an output of the computation's dtype.

    The variance is E[(x - mean)^2]. Flax's default, E[x^2] - E[x]^2, loses digits if the mean is
    large: its error against float64 was five times as large, and it was no faster.
    """
    return LayerNorm(width, epsilon=eps, dtype=jnp.dtype(dtype), rngs=rngs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """(x - mean) / deviation * scale + bias of x (..., D), with `scale` and `bias` (D,)."""
    return _forward(x, scale, bias, eps)[0]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> tuple[jax.Array, _Kept]:
    mean_of = _mean_on_matrix_unit if x.dtype == jnp.bfloat16 else _mean
    mean = named(mean_of(x, scale.dtype), STATISTICS)
    centred = x.astype(scale.dtype) - mean
    variance = mean_of(jnp.square(centred), scale.dtype)
    inverse = named(jax.lax.rsqrt(variance + eps), STATISTICS)
    y = centred * (inverse * _row(scale, x.ndim)) + _row(bias, x.ndim)
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _backward(eps: float, kept: _Kept, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of x, scale and bias; both means over the tokens' width are one pass."""
    x, mean, inverse, scale = kept
    normal, g = (x.astype(scale.dtype) - mean) * inverse, g.astype(scale.dtype)
    scaled = g * _row(scale, x.ndim)
    along_mean = scaled.mean(-1, keepdims=True)
    along_normal = (scaled * normal).mean(-1, keepdims=True)
    dx = inverse * (scaled - along_mean - normal * along_normal)
    rows = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (g * normal).sum(rows), g.sum(rows)


normalise.defvjp(_forward, _backward)


def _mean(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The mean over the last axis, which is kept."""
    return x.astype(dtype).mean(-1, keepdims=True)


def _mean_on_matrix_unit(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """`_mean`, on a TPU as a product, which takes a third of the time of a sum.

    A sum over the last axis moves numbers between the lanes of the vector unit. The product reads
    all bits of bfloat16, and the first 16 of float32.
    """
    by_product = functools.partial(mean_by_product, dtype=dtype)
    by_sum = functools.partial(_mean, dtype=dtype)
    return jax.lax.platform_dependent(x, tpu=by_product, default=by_sum)


def mean_by_product(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The mean over the last axis, which is kept, as a product with a matrix of ones."""
    total = jnp.einsum(
        "...D,DC->...C",
        x,
        jnp.ones((x.shape[-1], LANES), x.dtype),
        precision=None if x.dtype == jnp.bfloat16 else jax.lax.Precision.HIGH,
        preferred_element_type=dtype,
    )
    return total[..., :1] / x.shape[-1]


def _row(x: jax.Array, ndim: int) -> jax.Array:
    """(D,) with as many axes as the array that it applies to."""
    return x.reshape((1,) * (ndim - 1) + x.shape)


class GroupNorm(nnx.GroupNorm):
    """GroupNorm (arXiv 1803.08494) of each image, with float32 statistics and parameters."""

    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        assert mask is None and self.scale is not None and self.bias is not None
        x = x.astype(self.dtype)
        return normalise_groups(x, self.scale[...], self.bias[...], self.num_groups, self.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalise_groups(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, eps: float
) -> jax.Array:
    """(x - mean) / deviation * scale + bias of x (B, ..., C), with `scale` and `bias` (C,).

    Mean and deviation are those of an image's values in C / `groups` channels. The variance is
    E[(x - mean)^2]: released weights need its precision.
    """
    return _forward_groups(x, scale, bias, groups, eps)[0]


def _forward_groups(
    x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, eps: float
) -> tuple[jax.Array, _Kept]:
    mean = _mean_of_groups(x.astype(scale.dtype), groups)
    centred = x.astype(scale.dtype) - _spread(mean, x)
    inverse = jax.lax.rsqrt(_mean_of_groups(jnp.square(centred), groups) + eps)
    y = centred * (_spread(inverse, x) * _row(scale, x.ndim)) + _row(bias, x.ndim)
    return y.astype(x.dtype), (x, mean, inverse, scale)


def _backward_groups(
    groups: int, eps: float, kept: _Kept, g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of x, scale and bias; both sums over an image are one pass."""
    x, mean, inverse, scale = kept
    normal = (x.astype(scale.dtype) - _spread(mean, x)) * _spread(inverse, x)
    g, places = g.astype(scale.dtype), tuple(range(1, x.ndim - 1))
    along_bias, along_scale = g.sum(places), (g * normal).sum(places)  # (B, C)
    along_mean, along_normal = (
        _mean_of_groups(total * _row(scale, 2), groups) / math.prod(x.shape[1:-1])
        for total in (along_bias, along_scale)
    )
    scaled = g * _row(scale, x.ndim)
    dx = _spread(inverse, x) * (scaled - _spread(along_mean, x) - normal * _spread(along_normal, x))
    return dx.astype(x.dtype), along_scale.sum(0), along_bias.sum(0)


normalise_groups.defvjp(_forward_groups, _backward_groups)


def _mean_of_groups(x: jax.Array, groups: int) -> jax.Array:
    """The mean (B, G) of each image's values (B, ..., C) in each group of channels."""
    channels = x.mean(tuple(range(1, x.ndim - 1)))
    return channels.reshape(x.shape[0], groups, -1).mean(-1)


def _spread(numbers: jax.Array, x: jax.Array) -> jax.Array:
    """(B, G) as (B, 1, ..., C), for x (B, ..., C)."""
    batch, groups = numbers.shape
    channels = jnp.broadcast_to(numbers[..., None], (batch, groups, x.shape[-1] // groups))
    return channels.reshape(batch, *(1,) * (x.ndim - 2), x.shape[-1])
