"""The device mesh of a run, and the rows of a global batch that a process provides."""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.models.sharding import BATCH_AXES

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

    Raises ValueError if the product of the axes is not the number of devices, or if several TPU
    slices cannot share them.
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
    """Devices as an array (data, fsdp, tensor), with neighbours on the network side by side.

    On several TPU slices, `data` goes over the slices, and the other axes stay inside a slice: the
    network between slices is slow, and only gradients cross it. Raises ValueError if the sizes do
    not allow that.
    """
    slices = collections.Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(slices) == 1 or devices[0].platform != "tpu":
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    data, *inner = sizes
    if len(set(slices.values())) > 1:
        counts = ", ".join(str(count) for _, count in sorted(slices.items()))
        raise ValueError(f"the TPU slices have different sizes: {counts} devices: use equal slices")
    if data % len(slices):
        raise ValueError(
            f"mesh {{data: {data}, fsdp: {inner[0]}, tensor: {inner[1]}}} does not divide over"
            f" {len(slices)} TPU slices: make data a multiple of {len(slices)}, so that fsdp x"
            f" tensor stays inside a slice of {len(devices) // len(slices)} devices"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // len(slices), *inner),
        (len(slices), 1, 1),
        devices,
        allow_split_physical_axes=True,
    )


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


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process provides: int64 (R,), ascending.

    They may have gaps: devices have the order of the network, and the process may hold devices at
    several places of it.
    """
    sharding = NamedSharding(mesh, BATCH)
    held = sharding.addressable_devices_indices_map((batch_size,)).values()
    parts = {index[0].indices(batch_size)[:2] for index in held if index is not None}
    return np.concatenate([np.arange(*part) for part in sorted(parts)])


def replicated(array: jax.Array) -> jax.Array:
    """The whole array on every device of the current mesh, so that every process can read it."""
    if jax.sharding.get_abstract_mesh().empty:
        return array
    return jax.lax.with_sharding_constraint(array, P())


def to_global(batch: dict[str, np.ndarray], mesh: Mesh, *, batch_size: int) -> dict[str, jax.Array]:
    """Global arrays, made of the host arrays that hold the `local_rows` of every process."""
    sharding = NamedSharding(mesh, BATCH)
    rows = local_rows(mesh, batch_size)

    def place(array: np.ndarray) -> jax.Array:
        shape = (batch_size, *array.shape[1:])

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            low, high, _ = index[0].indices(batch_size)
            first = int(np.searchsorted(rows, low))
            return array[first : first + high - low]

        return jax.make_array_from_callback(shape, sharding, part)

    return {name: place(array) for name, array in batch.items()}


def whole_to_global(array: np.ndarray, mesh: Mesh, *, axis: int | None = None) -> jax.Array:
    """A global array of an array that every process holds whole.

    The devices hold parts of it along an axis, or the whole array if there is no axis.
    """
    split = P() if axis is None else P(*[None] * axis, BATCH_AXES)
    sharding = NamedSharding(mesh, split)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
