"""A stack of equal blocks: one set of parameters with a leading layer axis, one scan over it.

Shapes: L depth, B batch, T tokens, R rows of a position table, D width, H heads.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers import Block, BlockOptions, add_position
from vit_jax.models.remat import checkpointed
from vit_jax.models.sharding import split_batch

Module = TypeVar("Module", bound=nnx.Module)


class Intermediates(NamedTuple):
    """Values of every layer, only on request: the attention is T x T for every head and layer."""

    features: jax.Array  # (L, B, T, D), outputs of the blocks
    attention: jax.Array  # (L, B, H, T, T) float32, weights of every head


def create(options: BlockOptions, depth: int, *, rngs: nnx.Rngs) -> Block:
    """One `Block` with a leading layer axis on every parameter; layers are drawn separately."""
    return stacked(lambda rngs: Block(options, rngs=rngs), depth, rngs=rngs)


def stacked(make: Callable[[nnx.Rngs], Module], depth: int, *, rngs: nnx.Rngs) -> Module:
    """Like `create`, for any module that `make` returns."""
    return nnx.split_rngs(splits=depth)(nnx.vmap(make, in_axes=0, out_axes=0))(rngs)


def is_stacked(path: str) -> bool:
    """Whether the first axis of the parameter at a path is the layer."""
    return re.search(r"(^|/)blocks/", path) is not None


def scan(
    blocks: Block,
    x: jax.Array,  # (B, T, D)
    *,
    depth: int,
    table: jax.Array | None = None,
    tables: jax.Array | None = None,
    bias: jax.Array | None = None,
    drop_path: tuple[float, float] = (0.0, 0.0),
    key: jax.Array | None = None,
    return_intermediates: bool = False,
    remat: str = "none",
    unroll: int = 0,
    apart: int = 0,
    last: Block | None = None,
) -> tuple[jax.Array, Intermediates | None]:
    """Runs `x` through the layers; returns (B, T, D), and the `Intermediates` if requested.

    Before every block the positions `table` (1, R, D), or the block's entry of `tables`
    (L, 1, R, D), are added. `bias` (1, H, T, T) is added to the attention logits of every block.
    `drop_path` are the rates of the first and the last block. The first `apart` tokens are kept in
    an array of their own between the blocks: the result is the same. That goes without dropout,
    tables and biases, and without `Intermediates`. The blocks of `last` replace as many of the
    last ones; the blocks before them, and what comes before these, then get no gradient.
    """
    block, params = nnx.split(blocks)
    layers: dict[str, Any] = {"params": _cast_kernels(params, x.dtype)}
    own = None if last is None else _cast_kernels(nnx.state(last), x.dtype)
    if tables is not None:
        layers["table"] = tables
    if key is not None:
        layers["key"] = jax.random.split(key, depth)
        layers["drop_rate"] = jnp.linspace(*drop_path, depth)

    def body(x: Any, layer: dict[str, Any]) -> tuple[Any, Any]:
        positions = layer.get("table", table)
        x = x if positions is None else add_position(x, positions)
        x, weights = nnx.merge(block, layer["params"])(
            x,
            bias=bias,
            key=layer.get("key"),
            drop_rate=layer.get("drop_rate", 0.0),
            return_weights=return_intermediates,
        )
        x = jax.tree.map(split_batch, x)
        return x, None if weights is None else Intermediates(x, weights)

    body, unroll = checkpointed(body, remat), max(unroll, 1)

    if not apart:
        return _run(body, x, layers, own=own, unroll=unroll)
    streams = (x[:, apart:], x[:, :apart])
    (patches, prefix), _ = _run(body, streams, layers, own=own, unroll=unroll)
    return jnp.concatenate([prefix, patches], axis=1), None


def _run(
    body: Any, x: Any, layers: dict[str, Any], *, own: Any | None, unroll: int
) -> tuple[Any, Any]:
    """Scans over the layers; the parameters `own` replace those of the last ones."""
    if own is None:
        return jax.lax.scan(body, x, layers, unroll=unroll)
    depth, count = (jax.tree.leaves(params)[0].shape[0] for params in (layers["params"], own))
    before = depth - count
    x, held = jax.lax.stop_gradient((x, layers))

    def below(x: Any, number: jax.Array) -> tuple[Any, Any]:
        # A scan over the first layers alone would need a copy of them.
        layer = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, number, 0, False), held)
        return body(x, layer)

    x, first = jax.lax.scan(below, x, jnp.arange(before), unroll=unroll)
    rest = {name: array[before:] for name, array in layers.items() if name != "params"}
    above = {**rest, "params": own}
    x, then = jax.lax.scan(body, jax.lax.stop_gradient(x), above, unroll=unroll)
    return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, then)


def _cast_kernels(params: Any, dtype: jnp.dtype) -> Any:
    """Casts the kernels of all layers at once.

    Their gradients are then stacked, added up over arrays of tokens, and sent in this dtype. If
    every layer cast its kernels, they would be stacked in float32: for H/14 in bfloat16, this takes
    1.2 GiB more, and gradients of both arrays of tokens travel as float32.

    A kernel with an adapter of LoRA stays as it is: the layer adds both in float32 and casts the
    sum. It gets no gradient.
    """
    lora = jax.tree_util.DictKey("lora")
    every = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    adapted = {path[: path.index(lora)] for path in every if lora in path}

    def cast(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        name = jax.tree_util.DictKey("kernel")
        if name not in path or path[: path.index(name)] in adapted:
            return x
        # Kernels that are stored in int8 become float32 layer by layer.
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree_util.tree_map_with_path(cast, params)
