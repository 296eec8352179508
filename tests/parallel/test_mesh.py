"""The mesh, and which rows of a batch belong where: on 8 simulated devices."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from jax.experimental import mesh_utils

from vit_jax.config import MeshConfig
from vit_jax.parallel.mesh import (
    arrange,
    batch_parts,
    check_batch,
    local_rows,
    make_mesh,
    to_global,
)

MESHES = [
    {"data": 8},
    {"fsdp": 8, "data": 1},
    {"data": 2, "fsdp": 2, "tensor": 2},
    {"data": 1, "tensor": 8},
]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 4}, (2, 4, 1)),
        ({"data": 1, "fsdp": -1, "tensor": 2}, (1, 4, 2)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ],
)
def test_a_mesh_takes_all_devices(sizes, shape) -> None:
    mesh = make_mesh(MeshConfig(**sizes))
    assert mesh.shape == dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
    assert set(mesh.devices.flat) == set(jax.devices())
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"fsdp": 3}, "mesh {data: -1, fsdp: 3, tensor: 1} does not divide 8 devices: make the"),
        ({"data": 4}, "mesh {data: 4, fsdp: 1, tensor: 1} does not divide 8 devices"),
        ({"data": 16}, "does not divide 8 devices"),
        ({"fsdp": -1}, "mesh {data: -1, fsdp: -1, tensor: 1}: sizes are positive, and at most"),
        ({"fsdp": 0}, "sizes are positive"),
        ({"tensor": -2}, "sizes are positive"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(sizes, said) -> None:
    with pytest.raises(ValueError) as error:
        make_mesh(MeshConfig(**sizes))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("sizes", MESHES)
def test_every_device_holds_its_rows_of_the_batch(sizes) -> None:
    mesh = make_mesh(MeshConfig(**sizes))
    rows = local_rows(mesh, 16)
    assert rows == slice(0, 16), "one process holds all"
    host: dict[str, np.ndarray] = {
        "image": np.arange(16 * 6, dtype=np.uint8).reshape(16, 2, 3),
        "label": np.arange(16),
    }
    batch = to_global(host, mesh, batch_size=16)
    for name, array in batch.items():
        np.testing.assert_array_equal(array, host[name])
        assert array.dtype == jax.dtypes.canonicalize_dtype(host[name].dtype)
        assert {s.data.shape[0] for s in array.addressable_shards} == {16 // batch_parts(mesh)}


def test_a_batch_that_does_not_divide_is_refused() -> None:
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    check_batch(mesh, 12, name="config.batch_size")
    with pytest.raises(
        ValueError, match="config.batch_size 10 does not divide over the mesh: data"
    ):
        check_batch(mesh, 10, name="config.batch_size")
    check_batch(mesh, 24, accumulate=2, name="x")
    with pytest.raises(ValueError, match="x 12 .* x 2 micro-batches needs a multiple of 8"):
        check_batch(mesh, 12, accumulate=2, name="x")


@dataclasses.dataclass(eq=False)
class Chip:
    """What is asked of a TPU's device when a mesh is laid out."""

    id: int
    process_index: int
    coords: tuple[int, int, int]
    device_kind: str
    platform: str = "tpu"
    core_on_chip: int = 0
    slice_index: int = 0


def pod(kind: str, size: tuple[int, int, int], host: tuple[int, int]) -> list[Chip]:
    """The chips of a slice whose hosts hold blocks of it."""
    chips: list[Chip] = []
    blocks = itertools.product(
        range(size[2]), range(0, size[1], host[1]), range(0, size[0], host[0])
    )
    for process, (z, y, x) in enumerate(blocks):
        for j, i in itertools.product(range(host[1]), range(host[0])):
            number = x + i + size[0] * (y + j + size[1] * z)  # along the slice, through the hosts
            chips.append(Chip(number, process, (x + i, y + j, z), kind))
    return chips


@pytest.mark.parametrize(
    ("kind", "size", "host"),
    [
        ("TPU v5 lite", (4, 4, 1), (2, 2)),
        ("TPU v5 lite", (4, 8, 1), (2, 4)),
        ("TPU v6 lite", (4, 4, 1), (4, 2)),
        ("TPU v4", (2, 2, 4), (2, 2)),
        ("TPU v4", (4, 4, 4), (2, 2)),
    ],
)
def test_the_rows_of_a_host_are_one_block_on_any_slice(kind, size, host) -> None:
    """A host reads one block of a batch; the order of the network would weave those of hosts."""
    chips = pod(kind, size, host)
    n = len(chips)
    for shape in [(n, 1, 1), (1, n, 1), (2, n // 2, 1), (n // 4, 2, 2), (n // 4, 1, 4)]:
        mesh = arrange(chips, shape)
        assert mesh.shape == shape
        assert set(mesh.flat) == set(chips)
        holders = np.vectorize(lambda chip: chip.process_index)(mesh.reshape(-1, shape[2]))
        for process in np.unique(holders):
            rows = np.flatnonzero((holders == process).any(axis=1))
            assert len(rows) == rows[-1] - rows[0] + 1, (shape, process)


def test_one_host_keeps_the_order_of_its_network() -> None:
    chips = pod("TPU v5 lite", (2, 4, 1), (2, 4))
    near = mesh_utils.create_device_mesh((8, 1, 1), chips)
    assert list(near.flat) != chips, "a ring, not the order of the numbers"
    np.testing.assert_array_equal(arrange(chips, (8, 1, 1)), near)
