"""Softmax attention whose backward pass computes the weights again, and the split of its inputs.

Autodiff keeps the weights, the largest arrays of a block, or computes the whole softmax again with
its sums. Here the forward pass keeps the logarithm of the softmax's denominator, one number for
each query and head ("FlashAttention-2", arXiv 2307.08691, without its tiles), and the backward pass
gets the weights from it with one product and one exponential.

Shapes: B batch, Q queries, T keys, H heads, d width of a head.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from vit_jax.models.remat import ATTENTION, LOG_SUM, QKV, named

AttentionKind = Literal["auto", "recompute", "xla", "cudnn"]
LANES = 128  # columns that the matrix unit of a TPU computes at once
MANY_KEYS = 128  # keys from which on the rounding of the output does not matter

_Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array, jax.Array]
_Parts = tuple[jax.Array, jax.Array, jax.Array]


@jax.custom_vjp
def attend(
    q: jax.Array,  # (B, Q, H, d)
    k: jax.Array,  # (B, T, H, d)
    v: jax.Array,  # (B, T, H, d)
    bias: jax.Array | None,  # broadcastable to (B, H, Q, T)
) -> jax.Array:
    """softmax(q k / sqrt(d) + bias) v, (B, Q, H, d); the softmax is float32."""
    return _forward(q, k, v, bias)[0]


def logits_of(q: jax.Array, k: jax.Array, bias: jax.Array | None) -> jax.Array:
    """The logits q k / sqrt(d) + bias, float32 (B, H, Q, T).

    `q` is (B, Q, H, d) and `k` is (B, T, H, d).
    """
    logits = _product("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    return logits if bias is None else logits + bias.astype(logits.dtype)


def _forward(
    q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, _Kept]:
    logits = logits_of(q, k, bias)
    largest = logits.max(-1, keepdims=True)
    exponentials = jnp.exp(logits - largest)
    y, total = _weighted(exponentials, v)
    y = named((y / jnp.moveaxis(total, 1, 2)).astype(v.dtype), ATTENTION)
    log_sum = named(largest + jnp.log(total), LOG_SUM)  # (B, H, Q, 1)
    return y, (q, k, v, bias, y, log_sum)


def _weighted(exponentials: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums over the keys of exponentials (B, H, Q, T) times v, and of the exponentials.

    They are (B, Q, H, d) and (B, H, Q, 1). In bfloat16, ones beside the columns of v make the
    matrix product compute the second sum too, if they fit into the columns that a matrix unit
    computes anyway: a pass over the exponentials costs more.
    """
    ones = min(-v.shape[-1] % LANES, 16)
    if v.dtype == exponentials.dtype or not ones:
        y = _product("bhqk,bkhd->bqhd", exponentials.astype(v.dtype), v)
        return y, exponentials.sum(-1, keepdims=True)
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], ones), v.dtype)], axis=-1)
    both = _product("bhqk,bkhd->bqhd", exponentials.astype(v.dtype), v)
    return both[..., :-ones], jnp.moveaxis(both[..., -ones : both.shape[-1] - ones + 1], 1, 2)


def _backward(kept: _Kept, g: jax.Array) -> tuple[*_Parts, jax.Array | None]:
    q, k, v, bias, y, log_sum = kept
    weights = jnp.exp(logits_of(q, k, bias) - log_sum).astype(v.dtype)
    # Without the barrier, the compiler computes the exponentials again for each of their readers.
    weights = jax.lax.optimization_barrier(weights)
    dv = jnp.einsum("bhqk,bqhd->bkhd", weights, g)
    slopes = _product("bqhd,bkhd->bhqk", g, v)
    wide_weights = weights.astype(slopes.dtype)
    dlogits = wide_weights * (slopes - _mean_slope(wide_weights, slopes, y, g))
    dbias = None if bias is None else _sum_to(dlogits, bias.shape).astype(bias.dtype)
    # They are not rounded here. A TPU rounds them for its products anyway; elsewhere, gradients
    # would have 1.2 times the error.
    wide, scale = dlogits.dtype, q.shape[-1] ** -0.5
    dq = _product("bhqk,bkhd->bqhd", dlogits, k.astype(wide)) * scale
    dk = _product("bhqk,bqhd->bkhd", dlogits, q.astype(wide)) * scale
    return dq.astype(q.dtype), dk.astype(k.dtype), dv, dbias


def _mean_slope(weights: jax.Array, slopes: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """The mean of the slopes (B, H, Q, T) with the softmax weights, (B, H, Q, 1).

    It is also g y, summed over d. That needs no pass over the weights, but the rounding of y to
    bfloat16 does not cancel: with few keys, gradients of q and k had 1.5 times the error.
    """
    if y.dtype == slopes.dtype or slopes.shape[-1] >= MANY_KEYS:
        mean = (g.astype(slopes.dtype) * y.astype(slopes.dtype)).sum(-1)  # (B, Q, H)
        return jnp.moveaxis(mean, 1, 2)[..., None]
    # The sum of rounded weights is not exactly 1.
    return (weights * slopes).sum(-1, keepdims=True) / weights.sum(-1, keepdims=True)


attend.defvjp(_forward, _backward)


@jax.custom_vjp
def split(qkv: jax.Array, bias: jax.Array) -> _Parts:
    """q, k and v, (B, T, H, d) each, of `qkv` (B, T, 3, H, d) plus `bias` (3, H, d).

    The gradient of the bias is summed before those of q, k and v are stacked: that saves a pass
    over the stack.
    """
    return _split(qkv, bias)[0]


def _split(qkv: jax.Array, bias: jax.Array) -> tuple[_Parts, jax.Array]:
    q, k, v = jnp.moveaxis(named(qkv + bias.astype(qkv.dtype)[None, None], QKV), 2, 0)
    return (q, k, v), bias


def _join(bias: jax.Array, gs: _Parts) -> tuple[jax.Array, jax.Array]:
    dbias = jnp.stack([g.astype(bias.dtype).sum((0, 1)) for g in gs])
    return jnp.stack(gs, axis=2), dbias


split.defvjp(_split, _join)


def _product(how: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(how, a, b, preferred_element_type=jnp.float32)


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The sum of x over the axes along which an array of this shape was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if n != m)
    return x.sum(axes, keepdims=True)
