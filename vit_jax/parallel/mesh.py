"""The device mesh of a run, and the rows of a global batch that a process provides."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.models.layers import BATCH_AXES

AXES = ("data", "fsdp", "tensor")
BATCH = P(BATCH_AXES)  # how the leading axis of a batch is split


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """The number of devices along each axis; -1, for at most one axis, means all that are left."""

    data: int = -1  # splits the batch; parameters are replicated
    fsdp: int = 1  # splits the batch, the parameters and the optimizer state
    tensor: int = 1  # splits heads and MLP columns


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of `devices` (unset: all devices) with the axes `data`, `fsdp` and `tensor`.

    Raises ValueError if the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in AXES]
    shown = ", ".join(f"{axis}: {size}" for axis, size in zip(AXES, sizes, strict=True))
    if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh {{{shown}}}: sizes are positive, and at most one of them is -1")
    known = math.prod(size for size in sizes if size != -1)
    if len(devices) % known or (-1 not in sizes and known != len(devices)):
        raise ValueError(
            f"mesh {{{shown}}} does not divide {len(devices)} devices: make the product of the"
            " axes the number of devices, or set one axis to -1"
        )
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    auto = (jax.sharding.AxisType.Auto,) * len(AXES)
    return Mesh(arrange(devices, tuple(sizes)), AXES, axis_types=auto)


def arrange(devices: Sequence[Any], sizes: tuple[int, int, int]) -> np.ndarray:
    """Devices as an array (data, fsdp, tensor) in which the rows of a process are one block.

    Neighbours on the network stay together if that gives such blocks. On slices of several
    processes the order of the network often mixes their rows: then devices are sorted by process.
    """
    near = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    processes = np.array([device.process_index for device in near.flat]).reshape(-1, sizes[-1])
    for process in np.unique(processes):
        rows = np.flatnonzero((processes == process).any(axis=1))
        if rows[-1] - rows[0] >= len(rows):
            in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
            return np.array(in_order).reshape(sizes)
    return near


def batch_parts(mesh: Mesh) -> int:
    """The number of parts into which a mesh splits a batch."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(mesh: Mesh, batch_size: int, *, accumulate: int = 1, name: str) -> None:
    """Raises ValueError unless every device gets the same number of examples."""
    parts = batch_parts(mesh) * accumulate
    if batch_size % parts:
        micro = f" x {accumulate} micro-batches" if accumulate > 1 else ""
        raise ValueError(
            f"{name} {batch_size} does not divide over the mesh: data {mesh.shape['data']} x fsdp"
            f" {mesh.shape['fsdp']}{micro} needs a multiple of {parts}"
        )


def local_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a global batch that this process provides: one contiguous block."""
    sharding = NamedSharding(mesh, BATCH)
    held = sharding.addressable_devices_indices_map((batch_size,)).values()
    rows = {index[0].indices(batch_size)[:2] for index in held if index is not None}
    start, stop = min(row[0] for row in rows), max(row[1] for row in rows)
    assert sum(row[1] - row[0] for row in rows) == stop - start, "a process holds a gap"
    return slice(start, stop)


def to_global(batch: dict[str, np.ndarray], mesh: Mesh, *, batch_size: int) -> dict[str, jax.Array]:
    """Global arrays, made of the host arrays that hold the `local_rows` of every process."""
    sharding = NamedSharding(mesh, BATCH)
    start = local_rows(mesh, batch_size).start

    def place(array: np.ndarray) -> jax.Array:
        shape = (batch_size, *array.shape[1:])

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            low, high, _ = index[0].indices(batch_size)
            return array[low - start : high - start]

        return jax.make_array_from_callback(shape, sharding, part)

    return {name: place(array) for name, array in batch.items()}
