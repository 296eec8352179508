"""Dense layers whose kernels `fsdp` splits: gathered where they are used, gradients scattered.

Without this, the compiler chooses how to multiply by a split kernel. On TPUs it then passes parts
of kernels from device to device, or it adds up the whole gradient on every device.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from vit_jax.models import stack
from vit_jax.models.sharding import BATCH_AXES, batch_axes
from vit_jax.parallel import rules

Model = TypeVar("Model", bound=nnx.Module)
_TILE = (16, 128)  # of a TPU's memory, for bfloat16

Dimensions = Any  # the dimension numbers of `jax.lax.dot_general`


def gathering(model: Model) -> Model:
    """The model, whose dense layers now gather their kernels if the current mesh splits them."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return model
    for path, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Linear | nnx.LinearGeneral):
            name = "/".join([*map(str, path), "kernel"])
            axes = tuple(rules.spec(name, module.kernel.shape, mesh))
            if "fsdp" in axes:
                module.dot_general = Product(axes[1:] if stack.is_stacked(name) else axes)
    return model


@dataclasses.dataclass(frozen=True)
class Product:
    """Replaces `jax.lax.dot_general` in a layer. `axes` are the mesh axes of its kernel's axes."""

    axes: tuple[str | None, ...]

    def __call__(
        self, x: jax.Array, kernel: jax.Array, dimensions: Dimensions, **options: Any
    ) -> jax.Array:
        return _product(x, kernel, self.axes, dimensions, tuple(options.items()))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(
    x: jax.Array, kernel: jax.Array, axes: Any, dimensions: Dimensions, options: Any
) -> jax.Array:
    """The product of x (B, ...) and a kernel of the same dtype, which `fsdp` splits."""
    return _multiply(options)(x, _gathered(kernel, axes), dimensions)


def _multiply(options: Any) -> Callable[..., jax.Array]:
    return functools.partial(jax.lax.dot_general, **dict(options))


def _forward(x: jax.Array, kernel: jax.Array, *how: Any) -> tuple[jax.Array, Any]:
    return _product(x, kernel, *how), (x, kernel)


def _backward(
    axes: Any, dimensions: Dimensions, options: Any, kept: Any, g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), multiply = kept, _multiply(options)
    whole = _gathered(kernel, axes)
    (dx,) = jax.linear_transpose(lambda x: multiply(x, whole, dimensions), x)(g)

    def of_kernel(x: jax.Array, g: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        like = jax.ShapeDtypeStruct(shape, kernel.dtype)
        return jax.linear_transpose(lambda w: multiply(x, w, dimensions), like)(g)[0]

    if not batch_axes(x.shape[0]):
        dkernel = of_kernel(x, g, kernel.shape)
        return dx, jax.lax.with_sharding_constraint(dkernel, P(*axes))

    def of_rows(x: jax.Array, g: jax.Array) -> jax.Array:
        """This device's part of the gradient, from all its rows and those of the other devices."""
        sizes = jax.sharding.get_abstract_mesh().shape
        tensor = [sizes["tensor"] if axis == "tensor" else 1 for axis in axes]
        shape = tuple(n // parts for n, parts in zip(kernel.shape, tensor, strict=True))
        # The barrier keeps the compiler of TPUs from computing the product in the order in which
        # parts travel: that takes longer than to copy the gradient.
        own = jax.lax.optimization_barrier(of_kernel(x, g, shape))
        part = _scattered(own, axes.index("fsdp"), sizes["fsdp"])
        return jax.lax.psum(part, "data") if sizes["data"] > 1 else part

    specs = _rows(x.ndim, axes, dimensions)
    # Unless `check_vma` is off, the transposed product adds up over the devices by itself.
    return dx, jax.shard_map(of_rows, in_specs=specs, out_specs=P(*axes), check_vma=False)(x, g)


def _scattered(x: jax.Array, axis: int, parts: int) -> jax.Array:
    """The sum of an array over the devices of `fsdp`: this device's part along an axis.

    Parts travel as tiles behind an axis for the parts. Along another axis, or in short rows, TPUs
    would add up the whole array on every device; tiles that are not full would take extra steps.
    """
    x = jnp.moveaxis(x.reshape(*x.shape[:axis], parts, -1, *x.shape[axis + 1 :]), axis, 0)
    shape, size = x.shape[1:], x.size // parts
    tiles = -(-size // math.prod(_TILE))
    x = jnp.pad(x.reshape(parts, size), ((0, 0), (0, tiles * math.prod(_TILE) - size)))
    part = jax.lax.psum_scatter(x.reshape(parts, tiles * _TILE[0], _TILE[1]), "fsdp")
    if size % math.prod(_TILE):
        # The TPU compiler fails if it sees the slice as a view of the longer array (G/14, fsdp 16).
        part = jax.lax.optimization_barrier(part)
    return part.reshape(-1)[:size].reshape(shape)


def _rows(ndim: int, axes: tuple[str | None, ...], dimensions: Dimensions) -> tuple[P, P]:
    """How x (B, ...) with `ndim` axes and the product with a kernel are split by rows."""
    (of_x, of_kernel), _ = dimensions
    tensor = [axis if axis == "tensor" else None for axis in axes]
    x: list[Any] = [BATCH_AXES, *[None] * (ndim - 1)]
    for i, j in zip(of_x, of_kernel, strict=True):
        x[i] = tensor[j]
    product = [axis for i, axis in enumerate(x) if i not in of_x]
    product += [axis for j, axis in enumerate(tensor) if j not in of_kernel]
    return P(*x), P(*product)


_product.defvjp(_forward, _backward)


def _gathered(kernel: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    # Two constraints: the parts are cast before they travel, not after.
    parts = jax.lax.with_sharding_constraint(kernel, P(*axes))
    return jax.lax.with_sharding_constraint(parts, _without_fsdp(axes))


def _without_fsdp(axes: tuple[str | None, ...]) -> P:
    return P(*(None if axis == "fsdp" else axis for axis in axes))
