"""Initial values of a Vision Transformer, as the code of each paper draws them.

The modules are created with those of ViT; `redraw` replaces what another code draws otherwise. The
heads of a classifier are left alone: `head_std` and `head_bias` set them.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

Init = Literal["xavier", "big_vision", "deit", "mae", "beit"]

_Path = tuple[str, ...]
_Redrawn = Callable[[_Path, jax.Array], jax.Array]
_HEADS = ("head", "head_distillation")
_PATCHES = ("encoder", "embedding", "kernel")
_POSITION = ("encoder", "position")
_BLOCKS = "blocks"  # a part of the path of a stack of blocks, whose first axis are the layers


def redraw(model: nnx.Module, how: Init, *, fixed_position: bool, rngs: nnx.Rngs) -> None:
    """Replaces the initial values of a model.

    - xavier: those of ViT, nothing changes. Kernels of dense layers are uniform by the sum of both
      widths, those of queries, keys and values by their own; the class token is zero, learned
      positions have a deviation of 0.02.
    - big_vision: as xavier, but the learned table of positions has a deviation of 1 / sqrt(width).
    - deit: a normal distribution of deviation 0.02; the patches as PyTorch's convolution,
      uniform by the number of inputs.
    - mae: as xavier, but queries, keys and values are drawn as one kernel; the patches too, like a
      dense layer, but their bias as PyTorch's; tokens with a deviation of 0.02.
    - beit: a normal distribution of deviation 0.02, cut at one deviation. The output projections of
      both branches of block l, counted from 1, are divided by sqrt(2 l).

    deit, mae and beit set the other biases to zero. A `fixed_position` table keeps its values.
    """
    if how == "xavier":
        return
    params = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)))
    inputs, outputs = math.prod(params[_PATCHES].shape[:-1]), params[_PATCHES].shape[-1]
    rule = {
        "big_vision": lambda: _big_vision(fixed_position, rngs),
        "deit": lambda: _deit(inputs, rngs),
        "mae": lambda: _mae(inputs, outputs, rngs),
        "beit": lambda: _beit(rngs),
    }[how]()
    drawn = {
        path: value if path[0] in _HEADS or "stem" in path else rule(path, value)
        for path, value in params.items()
    }
    nnx.update(model, traverse_util.unflatten_dict(drawn))


def _big_vision(fixed_position: bool, rngs: nnx.Rngs) -> _Redrawn:
    """`get_posemb` of big_vision's models/vit.py; the rest of that file is drawn as ViT's."""

    def redrawn(path: _Path, value: jax.Array) -> jax.Array:
        if path != _POSITION or fixed_position:
            return value
        return _normal(rngs, value, deviation=value.shape[-1] ** -0.5)

    return redrawn


def _deit(inputs: int, rngs: nnx.Rngs) -> _Redrawn:
    """`VisionTransformer._init_weights` of timm 0.3.2, which facebookresearch/deit uses."""

    def redrawn(path: _Path, value: jax.Array) -> jax.Array:
        if path[:-1] == _PATCHES[:-1]:  # the bias too
            return _uniform(rngs, value, inputs**-0.5)
        if path[-1] == "bias":
            return jnp.zeros_like(value)
        return _normal(rngs, value) if path[-1] in ("kernel", "cls") else value

    return redrawn


def _mae(inputs: int, outputs: int, rngs: nnx.Rngs) -> _Redrawn:
    """`initialize_weights` of facebookresearch/mae."""

    def redrawn(path: _Path, value: jax.Array) -> jax.Array:
        if path == _PATCHES:
            return _uniform(rngs, value, math.sqrt(6 / (inputs + outputs)))
        if path[:-1] == _PATCHES[:-1]:  # its bias is still that of PyTorch's convolution
            return _uniform(rngs, value, inputs**-0.5)
        if path[-1] == "bias":
            return jnp.zeros_like(value)
        if path[-2:] == ("qkv", "kernel"):  # of D inputs and 3 D outputs instead of D
            return value * math.sqrt(2 / 4)
        return _normal(rngs, value) if path[-1] == "cls" else value

    return redrawn


def _beit(rngs: nnx.Rngs) -> _Redrawn:
    """`_init_weights` and `fix_init_weight` of microsoft/unilm's BEiT."""

    def redrawn(path: _Path, value: jax.Array) -> jax.Array:
        if path[-1] == "bias":
            return jnp.zeros_like(value)
        if path[-1] not in ("kernel", "cls", "mask"):
            return value
        drawn = 0.02 * jax.random.truncated_normal(rngs.params(), -1.0, 1.0, value.shape)
        last = path[-3:] in (("attention", "out", "kernel"), ("mlp", "fc2", "kernel"))
        if last and _BLOCKS in path:
            layers = jnp.arange(1.0, len(value) + 1)
            drawn = drawn / jnp.sqrt(2 * layers).reshape(-1, *[1] * (value.ndim - 1))
        return drawn.astype(value.dtype)

    return redrawn


def _uniform(rngs: nnx.Rngs, value: jax.Array, limit: float) -> jax.Array:
    return jax.random.uniform(rngs.params(), value.shape, value.dtype, -limit, limit)


def _normal(rngs: nnx.Rngs, value: jax.Array, *, deviation: float = 0.02) -> jax.Array:
    return deviation * jax.random.normal(rngs.params(), value.shape, value.dtype)
