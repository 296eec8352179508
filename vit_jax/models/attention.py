"""Softmax attention whose backward pass computes the weights again, and the split of its inputs.

Autodiff keeps the weights, the largest arrays of a block, or computes the whole softmax again with
its sums. Here the forward pass keeps the logarithm of the softmax's denominator, one number for
each query and head ("FlashAttention-2", arXiv 2307.08691, without its tiles), and the backward pass
gets the weights from it with one product and one exponential.

Shapes: B batch, Q queries, T keys, H heads, d width of a head.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.remat import ATTENTION, LOG_SUM, QKV, named
from vit_jax.models.sharding import LANES, by_image, row_major

AttentionKind = Literal["auto", "recompute", "streams", "xla", "cudnn"]
ROWS = 8  # rows of a register of a TPU, which computes with all of them
MANY_KEYS = 128  # keys from which on a sum over the weights takes too long


class Help(NamedTuple):
    """What a TPU is told, to be fast."""

    logits: bool = False  # to keep logits in a fixed order, and to compute them again
    images: bool = False  # to keep the arrays of the images one after another: `by_image`


_Parts = tuple[jax.Array, jax.Array, jax.Array]
_Arrays = tuple[jax.Array, ...]
_Order = Callable[[jax.Array], jax.Array]
_Kept = tuple[_Arrays, _Arrays, _Arrays, jax.Array | None, _Arrays, _Arrays]


def attend(
    q: jax.Array,  # (B, Q, H, d)
    k: jax.Array,  # (B, T, H, d)
    v: jax.Array,  # (B, T, H, d)
    bias: jax.Array | None,  # broadcastable to (B, H, Q, T)
    *,
    unrolled: bool = False,
    ordered: bool = False,
) -> jax.Array:
    """softmax(q k / sqrt(d) + bias) v, (B, Q, H, d); the softmax is float32.

    `unrolled` says that the blocks of the model are, and `ordered` that the arrays around the
    attention are kept by image: then a TPU needs help to be fast.
    """
    ragged = _is_ragged(q.shape[1], k.shape[1])
    return attend_streams((q,), (k,), (v,), bias, Help(unrolled and ragged, ordered))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend_streams(
    qs: _Arrays,  # (B, Q, H, d) each
    ks: _Arrays,  # (B, T, H, d) each
    vs: _Arrays,  # as ks
    bias: jax.Array | None = None,  # only for one array of each
    helped: Help = Help(),  # noqa: B008 (a constant)
) -> _Arrays:
    """`attend` for tokens in several arrays: all queries attend to the keys of all arrays.

    Tokens that are few stay apart from those whose number fits the tiles of a TPU: together they
    would be computed as if they were many more.
    """
    return _forward(qs, ks, vs, bias, helped)[0]


def logits_of(q: jax.Array, k: jax.Array, bias: jax.Array | None) -> jax.Array:
    """The logits q k / sqrt(d) + bias, float32 (B, H, Q, T).

    `q` is (B, Q, H, d) and `k` is (B, T, H, d).
    """
    logits = _product("bhqd,bhkd->bhqk", _heads_first(q), _heads_first(k)) * q.shape[-1] ** -0.5
    return logits if bias is None else logits + bias.astype(logits.dtype)


def apply_weights(weights: jax.Array, v: jax.Array) -> jax.Array:
    """The outputs (B, Q, H, d) of weights (B, H, Q, T) and values (B, T, H, d), in their dtype."""
    return _heads_first(jnp.einsum("bhqk,bhkd->bhqd", weights.astype(v.dtype), _heads_first(v)))


def _forward(
    qs: _Arrays, ks: _Arrays, vs: _Arrays, bias: jax.Array | None, helped: Help
) -> tuple[_Arrays, _Kept]:
    if helped.images:
        qs, ks, vs = _by_image(qs), _by_image(ks), _by_image(vs)
    found = [_of_queries(q, ks, vs, bias, helped) for q in qs]
    ys, log_sums = tuple(y for y, _ in found), tuple(log_sum for _, log_sum in found)
    return ys, (qs, ks, vs, bias, ys, log_sums)


def _of_queries(
    q: jax.Array, ks: _Arrays, vs: _Arrays, bias: jax.Array | None, helped: Help
) -> tuple[jax.Array, jax.Array]:
    """The output (B, Q, H, d), and the logarithm of the sum of the exponentials (B, H, Q, 1)."""
    order = _order(helped)
    logits = [order(logits_of(q, k, bias)) for k in ks]
    largest = functools.reduce(jnp.maximum, [part.max(-1, keepdims=True) for part in logits])
    sums = [_weighted(jnp.exp(part - largest), v) for part, v in zip(logits, vs, strict=True)]
    y, total = _sum([y for y, _ in sums]), _sum([total for _, total in sums])
    y = y * (1 / total)  # one division for each query and head
    y = _heads_first(y).astype(vs[0].dtype)
    y = by_image(y, tensor=2) if helped.images else y
    return named(y, ATTENTION), named(largest + jnp.log(total), LOG_SUM)


def _weighted(exponentials: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums over the keys of exponentials (B, H, Q, T) times v, and of the exponentials.

    They are (B, H, Q, d) and (B, H, Q, 1). In bfloat16, ones beside the columns of v make the
    matrix product compute the second sum too, if they fit into the columns that a matrix unit
    computes anyway: a pass over the exponentials costs more, unless the keys are fewer than 128.
    """
    ones = min(-v.shape[-1] % LANES, 16)
    if v.dtype == exponentials.dtype or not ones or v.shape[1] < MANY_KEYS:
        y = _product("bhqk,bhkd->bhqd", exponentials.astype(v.dtype), _heads_first(v))
        return y, exponentials.sum(-1, keepdims=True)
    v = jnp.concatenate([v, jnp.ones((*v.shape[:-1], ones), v.dtype)], axis=-1)
    both = _product("bhqk,bhkd->bhqd", exponentials.astype(v.dtype), _heads_first(v))
    return both[..., :-ones], both[..., -ones : both.shape[-1] - ones + 1]


def _backward(
    helped: Help, kept: _Kept, gs: _Arrays
) -> tuple[_Arrays, _Arrays, _Arrays, jax.Array | None]:
    qs, ks, vs, bias, ys, log_sums = kept
    if helped.images:
        ys, gs = _by_image(ys), _by_image(gs)
    rows = [
        [_gradients(q, k, v, bias, log_sum, g, mean, helped) for k, v in zip(ks, vs, strict=True)]
        for q, log_sum, g, mean in zip(qs, log_sums, gs, _mean_slopes(ks, ys, gs), strict=True)
    ]
    columns = list(zip(*rows, strict=True))
    dqs = [_sum([one[0] for one in row]) for row in rows]
    dks, dvs = ([_sum([one[i] for one in column]) for column in columns] for i in (1, 2))
    return _as(dqs, qs), _as(dks, ks), _as(dvs, vs), rows[0][0][3]


def _gradients(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    log_sum: jax.Array,
    g: jax.Array,
    mean: jax.Array | None,
    helped: Help,
) -> tuple[*_Parts, jax.Array | None]:
    """The gradients of queries, keys, values and bias, of these queries and keys together."""
    order, fresh = _order(helped), _fresh(k) if helped.logits else k
    weights = jnp.exp(order(logits_of(q, fresh, bias)) - log_sum).astype(v.dtype)
    # Without the barrier, the compiler computes the exponentials again for each of their readers.
    weights = jax.lax.optimization_barrier(weights)
    g = _heads_first(g)
    dv = _heads_first(_product("bhqk,bhqd->bhkd", weights, g, v.dtype))
    slopes = order(_product("bhqd,bhkd->bhqk", g, _heads_first(v)))
    wide_weights = weights.astype(slopes.dtype)
    if mean is None:  # the sum of rounded weights is not exactly 1
        total = wide_weights.sum(-1, keepdims=True)
        mean = (wide_weights * slopes).sum(-1, keepdims=True) / total
    dlogits = wide_weights * (slopes - mean)
    dbias = None if bias is None else _sum_to(dlogits, bias.shape).astype(bias.dtype)
    # They are not rounded here. A TPU rounds them for its products anyway; elsewhere, gradients
    # would have 1.2 times the error.
    wide, scale = dlogits.dtype, q.shape[-1] ** -0.5
    dq = _product("bhqk,bhkd->bhqd", dlogits, _heads_first(k.astype(wide))) * scale
    dk = _product("bhqk,bhqd->bhkd", dlogits, _heads_first(q.astype(wide))) * scale
    return _heads_first(dq), _heads_first(dk), dv, dbias


def _mean_slopes(ks: _Arrays, ys: _Arrays, gs: _Arrays) -> list[jax.Array | None]:
    """For each array of queries, the mean of the slopes, with the softmax weights.

    It is (B, H, Q, 1), or None if it has to be computed from the weights. The product of y and g,
    summed over d, needs no pass over the weights, but the rounding of y to bfloat16 does not
    cancel: gradients of q and k have 1.1 to 2.6 times the error, most for a peaked softmax.
    """
    wide = np.promote_types(ys[0].dtype, np.float32)
    few = len(ks) == 1 and ks[0].shape[1] < MANY_KEYS
    if few and ys[0].dtype != wide:
        return [None] * len(ys)
    means = [(g.astype(wide) * y.astype(wide)).sum(-1) for y, g in zip(ys, gs, strict=True)]
    return [jnp.moveaxis(mean, 1, 2)[..., None] for mean in means]  # from (B, Q, H)


attend_streams.defvjp(_forward, _backward)


def _is_ragged(queries: int, keys: int) -> bool:
    """Whether the last columns of many are in a tile of a TPU that they do not fill."""
    return min(queries, keys) > LANES and keys % LANES > 0


def _by_image(arrays: _Arrays) -> _Arrays:
    return tuple(by_image(x, tensor=2) for x in arrays)


def _order(helped: Help) -> _Order:
    """A function that fixes how logits (B, H, Q, T) lie in the memory of a TPU.

    Where blocks are unrolled and the keys do not fill a tile, its compiler would else choose
    another order and copy from one to the other: a step of B/16 takes 1.2 times as long.
    """
    return row_major if helped.logits else lambda logits: logits


def _fresh(k: jax.Array) -> jax.Array:
    """The same keys, from which a TPU computes the logits again.

    Where blocks are unrolled, its compiler would else keep those of the forward pass.
    """
    return jax.lax.platform_dependent(k, tpu=jax.lax.optimization_barrier, default=lambda k: k)


def _sum(arrays: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, arrays)


def _as(arrays: list[jax.Array], like: _Arrays) -> _Arrays:
    return tuple(x.astype(other.dtype) for x, other in zip(arrays, like, strict=True))


@jax.custom_vjp
def split(qkv: jax.Array, bias: jax.Array) -> _Parts:
    """q, k and v, (B, T, H, d) each, of `qkv` (B, T, 3, H, d) plus `bias` (3, H, d).

    The gradient of the bias is summed before those of q, k and v are stacked: that saves a pass
    over the stack.
    """
    return _split(qkv, bias)[0]


def _split(qkv: jax.Array, bias: jax.Array) -> tuple[_Parts, jax.Array]:
    q, k, v = jnp.moveaxis(qkv + bias.astype(qkv.dtype)[None, None], 2, 0)
    # They are named one by one: what keeps them together is taken apart again on a TPU.
    return (named(q, QKV), named(k, QKV), named(v, QKV)), bias


def _join(bias: jax.Array, gs: _Parts) -> tuple[jax.Array, jax.Array]:
    dbias = jnp.stack([g.astype(bias.dtype).sum((0, 1)) for g in gs])
    return jnp.stack(gs, axis=2), dbias


split.defvjp(_split, _join)


def _heads_first(x: jax.Array) -> jax.Array:
    """(B, H, T, d) of (B, T, H, d), and back.

    The products below name their dimensions in the order in which they are computed. With the
    heads behind the tokens, einsum swaps the factors, and a CPU takes twice as long for them.
    """
    return jnp.swapaxes(x, 1, 2)


def _product(
    how: str, a: jax.Array, b: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
    """An einsum, whose output has this dtype.

    Few rows or columns of the output are filled up to `ROWS`: the compiler of a TPU sums products
    of single rows over the lanes of the vector unit, which takes twice as long.
    """
    inputs, output = how.split("->")
    one, other = inputs.split(",")
    sizes = dict(zip(one + other, a.shape + b.shape, strict=True))
    few = {name for name in "qk" if name in output and sizes[name] < ROWS}
    if not few or max(sizes["q"], sizes["k"]) < LANES:
        return jnp.einsum(how, a, b, preferred_element_type=dtype)
    filled = (_filled(x, [name in few for name in names]) for x, names in ((a, one), (b, other)))
    y = jnp.einsum(how, *filled, preferred_element_type=dtype)
    return y[tuple(slice(sizes[name]) for name in output)]


def _filled(x: jax.Array, axes: list[bool]) -> jax.Array:
    """Appends zeros along these axes, up to the length `ROWS`."""
    return jnp.pad(x, [(0, axis and ROWS - n) for n, axis in zip(x.shape, axes, strict=True)])


def _sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The sum of x over the axes along which an array of this shape was broadcast."""
    axes = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if n != m)
    return x.sum(axes, keepdims=True)


def library(
    q: jax.Array,  # (B, Q, H, d)
    k: jax.Array,  # (B, T, H, d)
    v: jax.Array,  # (B, T, H, d)
    bias: jax.Array | None,  # broadcastable to (B, H, Q, T)
    *,
    kind: Literal["xla", "cudnn"],
    even: bool,
) -> jax.Array:
    """`attend` as JAX implements it.

    JAX trains with cuDNN's attention for even numbers of tokens only. With `even`, one masked token
    is added where the number is odd.
    """
    queries, keys = q.shape[1], k.shape[1]
    known: tuple[jax.Array | None, ...] = (None, None)
    if even and (queries % 2 or keys % 2):
        known = tuple(jnp.full((q.shape[0],), length, np.int32) for length in (queries, keys))
        q, k, v = _even(q, (1,)), _even(k, (1,)), _even(v, (1,))
        if bias is not None:
            bias = _even(jnp.broadcast_to(bias, (*bias.shape[:2], queries, keys)), (2, 3))
    with jax.numpy_dtype_promotion("standard"):  # promotes logits implicitly
        y = jax.nn.dot_product_attention(
            q,
            k,
            v,
            bias,
            implementation=kind,
            query_seq_lengths=known[0],
            key_value_seq_lengths=known[1],
        )
    return named(y[:, :queries], ATTENTION)


def _even(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Appends a zero along each of these axes whose length is odd."""
    return jnp.pad(x, [(0, n % 2 if i in axes else 0) for i, n in enumerate(x.shape)])


def check_cudnn(dtype: str, *, head: int) -> None:
    """Raises ValueError if cuDNN cannot compute attention of heads this wide."""
    if needs := cudnn_needs(dtype, head=head):
        raise ValueError(f"attention 'cudnn' needs {needs}, or use attention 'auto'")


def cudnn_needs(dtype: str, *, head: int) -> str:
    """What cuDNN needs to compute attention of heads this wide, and what to do; "": nothing."""
    if dtype != "bfloat16":
        return f"dtype 'bfloat16', not {dtype!r}: set it"
    if head % 8 or head > 256:
        return (
            "heads whose width is a multiple of 8 and at most 256, not"
            f" {head}: change the number of heads"
        )
    return ""
