"""How arrays of a model lie on the devices of the current mesh, and in their memory.

Shapes: B batch, H heads.
"""

import functools
import math

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import PartitionSpec

BATCH_AXES = ("data", "fsdp")  # mesh axes that split a batch


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


def row_major(x: jax.Array) -> jax.Array:
    """Keeps (B, H, ...) in the order of its axes in the memory of a TPU, if a mesh is set.

    The compiler partitions no array whose order is fixed, and would gather it on some topologies.
    So every device fixes the order of its own part.
    """
    axes, mesh = batch_axes(x.shape[0]), jax.sharding.get_abstract_mesh()
    if not axes or x.shape[1] % mesh.shape["tensor"]:
        return x
    spec = PartitionSpec(axes, "tensor")
    fixed = functools.partial(with_layout_constraint, layouts=Layout(tuple(range(x.ndim))))
    parts = jax.shard_map(fixed, in_specs=spec, out_specs=spec, check_vma=False)
    return jax.lax.platform_dependent(x, tpu=parts, default=lambda x: x)
