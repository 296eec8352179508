"""LayerNorm with a backward pass of its own.

Autodiff would keep several arrays of the size of the input and read them in several passes. This
backward pass reads the input and the gradient, and keeps two numbers for each token.

Shapes: ... any leading axes, D width.
"""

import functools

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
