"""Low-rank adapters of dense layers: LoRA (arXiv 2106.09685).

A layer with an adapter computes x W + alpha / rank * (x A) B. W is the kernel (*I, *O) from the
input axes I to the output axes O, A is (*I, rank) and B (rank, *O). B starts at zero, so a new
adapter changes nothing.

Forward it is one product, x (W + alpha / rank * A B), because thin products of many rows take a TPU
almost as long as whole ones. Backward, the gradients of A and B are thin products of x and of the
gradient of the output: the gradient of W would take a whole one.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

# The dense layers of a block, by their paths, and the number of input axes of their kernels.
LAYERS = {"attention/qkv": 1, "attention/out": 2, "mlp/fc1": 1, "mlp/fc2": 1}
BLOCKS = "encoder/blocks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """The low-rank adapters of the blocks of an encoder. Raises ValueError for a bad field."""

    rank: int = 8  # of the change of a kernel
    alpha: float = 8.0  # the change is multiplied by alpha / rank
    # Regular expressions of the adapted layers: encoder/blocks/attention/qkv (query, key and value
    # are one kernel), encoder/blocks/attention/out, encoder/blocks/mlp/fc1, encoder/blocks/mlp/fc2.
    layers: tuple[str, ...] = ("attention/qkv",)

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"the rank of LoRA is {self.rank}: it must be at least 1")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha of LoRA is {self.alpha}: it must be positive and finite")
        if not self.layers:
            raise ValueError("LoRA adapts no layer: name some in layers")
        for pattern in self.layers:
            _check(pattern)

    def adapts(self, layer: str) -> bool:
        """Whether it adapts a layer of `LAYERS`."""
        return any(re.search(pattern, f"{BLOCKS}/{layer}") for pattern in self.layers)


class Lora(nnx.Module):
    """The adapter of a layer."""

    def __init__(
        self, kernel: tuple[int, ...], inputs: int, options: LoraOptions, *, rngs: nnx.Rngs
    ) -> None:
        """`kernel` is the shape of the kernel, `inputs` the number of its input axes."""
        rank, sizes = options.rank, kernel[:inputs]
        # The paper draws A from a Gaussian; its code has this deviation, of a uniform distribution.
        draw = nnx.initializers.normal(1 / math.sqrt(3 * math.prod(sizes)))
        self.a = nnx.Param(draw(rngs.params(), (*sizes, rank)))
        self.b = nnx.Param(jnp.zeros((rank, *kernel[inputs:])))
        self.scale = options.alpha / rank

    def merged(self, kernel: jax.Array) -> jax.Array:
        """The kernel (*I, *O) with the adapter, float32. Its gradient does not reach A and B."""
        change = jnp.tensordot(self.a[...], self.b[...], 1, precision=jax.lax.Precision.HIGHEST)
        return kernel + jax.lax.stop_gradient(self.scale * change)

    def gradient(self, x: jax.Array) -> jax.Array:
        """Zeros (..., *O) for inputs (..., *I), through which A and B get their gradients."""
        return _zeros(x, self.a[...], self.b[...], self.scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _zeros(x: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    return jnp.zeros((*x.shape[: x.ndim - a.ndim + 1], *b.shape[1:]), x.dtype)


def _forward(x: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> tuple[jax.Array, Any]:
    return _zeros(x, a, b, scale), (x, a, b)


def _backward(scale: float, kept: Any, g: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients of scale * (x A) B; that of x comes with the product of the merged kernel."""
    x, a, b = kept
    rows = x.ndim - a.ndim + 1  # axes that are not of I
    inner, outer = a.ndim - 1, b.ndim - 1
    sum_rows = functools.partial(
        jnp.tensordot, axes=[tuple(range(rows))] * 2, preferred_element_type=jnp.float32
    )
    of_b = sum_rows(jnp.tensordot(x, a.astype(x.dtype), inner), g)
    of_output = jnp.tensordot(g, jnp.moveaxis(b, 0, -1).astype(g.dtype), outer)
    return jnp.zeros_like(x), scale * sum_rows(x, of_output), scale * of_b


_zeros.defvjp(_forward, _backward)


class Linear(nnx.Linear):
    """A dense layer of the last axis, which may have an adapter."""

    lora: Lora | None = None

    @property
    def kernel_dtype(self) -> Any:
        return _kernel_dtype(self)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        if self.lora is None:
            return super().__call__(inputs, out_sharding)
        return _biased(product(self, inputs), self)


class LinearGeneral(nnx.LinearGeneral):
    """A dense layer of the last axes, which may have an adapter."""

    lora: Lora | None = None

    @property
    def kernel_dtype(self) -> Any:
        return _kernel_dtype(self)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        if self.lora is None:
            return super().__call__(inputs, out_sharding)
        return _biased(product(self, inputs), self)


def product(layer: Linear | LinearGeneral, x: jax.Array) -> jax.Array:
    """The output (..., *O) of a layer for inputs (..., *I), without its bias."""
    kernel = layer.kernel[...] if layer.lora is None else layer.lora.merged(layer.kernel[...])
    x, kernel = x.astype(layer.dtype), kernel.astype(layer.dtype)
    inputs = kernel.ndim - len(_outputs(layer))
    axes = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
    multiply = layer.dot_general or jax.lax.dot_general  # a mesh may set the layer's
    y = multiply(x, kernel, (axes, ((), ())))
    return y if layer.lora is None else y + layer.lora.gradient(x)


def attach(
    layer: Linear | LinearGeneral, name: str, options: LoraOptions | None, *, rngs: nnx.Rngs
) -> None:
    """Gives the layer of a block with this name in `LAYERS` its adapter, if it has one."""
    if options and options.adapts(name):
        layer.lora = Lora(layer.kernel.shape, LAYERS[name], options, rngs=rngs)


def merged(params: Mapping[str, np.ndarray], options: LoraOptions) -> dict[str, np.ndarray]:
    """The flat dict of parameters with the adapters added to the kernels, and without adapters."""
    out = dict(params)
    for name, inputs in LAYERS.items():
        if not options.adapts(name):
            continue
        path = f"{BLOCKS}/{name}"
        a, b = (np.asarray(out.pop(f"{path}/lora/{part}"), np.float64) for part in "ab")
        assert a.ndim == inputs + 2, "(L, *I, rank)"
        kernel = out[f"{path}/kernel"]
        flat = a.reshape(len(a), -1, options.rank) @ b.reshape(len(b), options.rank, -1)
        change = options.alpha / options.rank * flat.reshape(kernel.shape)
        out[f"{path}/kernel"] = (kernel + change).astype(np.float32)
    return out


def _biased(y: jax.Array, layer: Linear | LinearGeneral) -> jax.Array:
    if layer.bias is None:
        return y
    bias = layer.bias[...].astype(y.dtype)
    return y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)


def _kernel_dtype(layer: Linear | LinearGeneral) -> Any:
    """The dtype in which the layer reads its kernel: an adapter is added before it is rounded."""
    return layer.dtype if layer.lora is None else jnp.dtype("float32")


def _outputs(layer: Linear | LinearGeneral) -> tuple[int, ...]:
    """The sizes of the output axes of a layer."""
    sizes = layer.out_features
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


def _check(pattern: str) -> None:
    """Raises ValueError for a pattern that is no regular expression, or matches no layer."""
    names = [f"{BLOCKS}/{name}" for name in LAYERS]
    try:
        found = any(re.search(pattern, name) for name in names)
    except re.error as error:
        raise ValueError(f"layers of LoRA: {pattern!r} is not a regular expression") from error
    if not found:
        raise ValueError(
            f"layers of LoRA: {pattern!r} matches no layer: choose from {', '.join(names)}"
        )
