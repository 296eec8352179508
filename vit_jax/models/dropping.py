"""Dropout and stochastic depth. No key means that nothing is dropped.

The random numbers of dropout are dear on a TPU, and a backward pass that computes a block again
draws them again. The hidden values of an MLP are most of them. So `mark` marks what is dropped in
the values before the activation, which the backward pass keeps anyway, and `drop_marked` reads the
marks after it. Together they are `dropout` after the activation.

Shapes: B batch, T tokens, D width.
"""

import jax
import jax.numpy as jnp

_MARK = -(2.0**13)  # GELU and SiLU are zero here and below; exact in bfloat16


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes elements with probability `rate` and scales the others to keep the mean."""
    if key is None or not rate:
        return x
    return _scaled(x, _drawn(x, rate, key), rate)


def mark(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Replaces elements with probability `rate` by a number whose GELU and SiLU are zero.

    The gradient passes as if nothing were replaced: `drop_marked` makes it zero there.
    """
    if key is None or not rate:
        return x
    return _marked(x, _drawn(x, rate, key))


def drop_marked(y: jax.Array, x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes the elements of `y` that `mark` replaced in `x`; scales the others as `dropout` does.

    `y` is an activation of `x`. Not a number is kept, so that it is seen.
    """
    if key is None or not rate:
        return y
    return _scaled(y, ~(x <= _MARK), rate)


def drop_path(x: jax.Array, *, rate: jax.Array | float, key: jax.Array | None) -> jax.Array:
    """Stochastic depth: drops the branch (B, T, D) of whole samples, and scales the others."""
    if key is None or (isinstance(rate, float) and not rate):
        return x
    keep = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1))
    branch = x if isinstance(rate, float) else x.astype(rate.dtype)
    return jnp.where(keep, branch / (1 - rate), 0).astype(x.dtype)


def _drawn(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    return jax.random.bernoulli(key, 1 - rate, x.shape)


def _scaled(x: jax.Array, keep: jax.Array, rate: float) -> jax.Array:
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


@jax.custom_jvp
def _marked(x: jax.Array, keep: jax.Array) -> jax.Array:
    return jnp.where(keep, x, jnp.asarray(_MARK, x.dtype))


@_marked.defjvp
def _pass_on(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Without this rule the backward pass would need `keep`, and draw it again."""
    return _marked(*primals), tangents[0]
