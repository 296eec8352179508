"""How arrays of a model lie on the devices of the current mesh, and in their memory.

Shapes: B batch, T tokens, D width, H heads, d = D/H.
"""

import functools
import math

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")  # mesh axes that split a batch
LANES = 128  # numbers side by side in a register of a TPU, and columns of its matrix unit


def batch_axes(rows: int) -> tuple[str, ...]:
    """The axes of the current mesh that split a batch of this many rows; () if none do."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(axis for axis in BATCH_AXES if axis in mesh.axis_names)
    divides = axes and rows % math.prod(mesh.shape[axis] for axis in axes) == 0
    return axes if divides else ()


def split_batch(x: jax.Array) -> jax.Array:
    """Keeps (B, ...) split over the batch axes of the current mesh, if one is set.

    Without this, the compiler may follow the split of the parameters instead, gather the whole
    batch and sum partial products: correct, but `fsdp` would save no memory and cost more traffic.
    """
    axes = batch_axes(x.shape[0])
    if not axes:
        return x
    spec = PartitionSpec(axes, *[None] * (x.ndim - 1))
    return jax.lax.with_sharding_constraint(x, spec)


def row_major(x: jax.Array, *, tensor: int = 1) -> jax.Array:
    """Keeps (B, ...) in the order of its axes in the memory of a TPU, if a mesh is set.

    `tensor` is the axis that the mesh axis of this name splits, such as heads; 0: none.
    """
    return _in_order(x, tuple(range(x.ndim)), tensor=tensor)


def by_image(x: jax.Array, *, tensor: int = 0) -> jax.Array:
    """Keeps the arrays of the images one after another in the memory of a TPU, if a mesh is set.

    `x` is (B, T, D), or (B, T, H, d), whose tokens then come last. With a multiple of 128 images on
    each device, the compiler would else put the images into the lanes of the vector unit, and copy
    all inputs and outputs of the products of the attention, which need the tokens there: a step of
    B/16 takes 1.2 to 1.4 times as long. Few tokens would leave most of the lanes empty, and a
    multiple of 128 is as fast in any order: these are left alone. `tensor` is the axis that the
    mesh axis of this name splits; 0: none.
    """
    axes, tokens = batch_axes(x.shape[0]), x.shape[1]
    mesh = jax.sharding.get_abstract_mesh()
    images = x.shape[0] // math.prod(mesh.shape[axis] for axis in axes)
    if images % LANES or tokens <= LANES // 2 or not tokens % LANES:
        return x
    return _in_order(x, (0, 1, 2) if x.ndim == 3 else (0, 2, 3, 1), tensor=tensor)


def _in_order(x: jax.Array, order: tuple[int, ...], *, tensor: int) -> jax.Array:
    """Fixes the order of the axes (B, ...) in the memory of a TPU, the slowest first.

    The compiler partitions no array whose order is fixed, and would gather it on some topologies.
    So every device fixes the order of its own part.
    """
    axes, mesh = batch_axes(x.shape[0]), jax.sharding.get_abstract_mesh()
    split: list[str | None] = [None] * (x.ndim - 1)
    if tensor and "tensor" in mesh.axis_names:
        split[tensor - 1] = "tensor"
    if not axes or ("tensor" in split and x.shape[tensor] % mesh.shape["tensor"]):
        return x
    spec = PartitionSpec(axes, *split)
    fixed = functools.partial(with_layout_constraint, layouts=Layout(order))
    parts = jax.shard_map(fixed, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.lax.platform_dependent(x, tpu=parts, default=lambda x: x)
