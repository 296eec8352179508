"""The mesh, and which rows of a batch belong where: on 8 simulated devices."""

import jax
import numpy as np
import pytest

from tests.parallel import pods
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
    np.testing.assert_array_equal(rows, np.arange(16), "one process holds all")
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


V5E, V5P = "TPU v5 lite", "TPU v5"
# Slice, mesh, and the most rings of `data`, `fsdp` and `tensor` that may share a link. More than
# one ring on a link is harmless for `data` beside `fsdp`: only parts of gradients cross it.
LAYOUTS = [
    (V5E, (8, 8, 1), (64, 1, 1), (1, 1, 1)),
    (V5E, (8, 8, 1), (8, 8, 1), (1, 1, 1)),
    (V5E, (8, 8, 1), (1, 64, 1), (1, 1, 1)),
    (V5E, (16, 16, 1), (256, 1, 1), (1, 1, 1)),
    (V5E, (16, 16, 1), (16, 16, 1), (1, 1, 1)),
    (V5E, (16, 16, 1), (4, 64, 1), (4, 1, 1)),
    (V5P, (4, 4, 4), (4, 16, 1), (1, 1, 1)),
    (V5P, (8, 8, 4), (16, 16, 1), (2, 1, 1)),
    (V5P, (8, 8, 4), (4, 64, 1), (1, 1, 1)),
    (V5P, (8, 8, 4), (1, 64, 4), (1, 1, 1)),
]


@pytest.mark.parametrize(("kind", "size", "sizes", "most"), LAYOUTS)
def test_rings_of_a_mesh_axis_do_not_share_links(kind, size, sizes, most) -> None:
    mesh = arrange(pods.pod(kind, size), sizes)
    assert mesh.shape == sizes
    for axis, bound in enumerate(most):
        if sizes[axis] > 1:
            found = pods.rings_on_the_busiest_link(mesh, axis, size)
            assert found <= bound, f"axis {axis}: {found} rings share a link"


def test_devices_in_the_order_of_their_processes_would_share_links() -> None:
    """The check above is able to fail: it finds four rings on a link of the plain order."""
    chips = sorted(pods.pod(V5E, (16, 16, 1)), key=lambda chip: (chip.process_index, chip.id))
    plain = np.array(chips).reshape(16, 16, 1)
    assert pods.rings_on_the_busiest_link(plain, 0, (16, 16, 1)) == 4


@pytest.mark.parametrize(("slices", "sizes"), [(2, (2, 16, 1)), (4, (16, 4, 1)), (2, (4, 4, 2))])
def test_data_goes_over_slices_and_the_other_axes_stay_inside(slices, sizes) -> None:
    chips = pods.pod(V5E, (4, 4, 1), slices=slices)
    mesh = arrange(chips, sizes)
    assert mesh.shape == sizes and set(mesh.flat) == set(chips)
    index = np.vectorize(lambda chip: chip.slice_index)(mesh)
    expected = np.repeat(np.arange(slices), sizes[0] // slices)
    np.testing.assert_array_equal(index, np.broadcast_to(expected[:, None, None], sizes))


def test_a_mesh_that_would_split_fsdp_over_slices_is_refused() -> None:
    chips = pods.pod(V5E, (4, 4, 1), slices=2)
    with pytest.raises(ValueError) as error:
        make_mesh(MeshConfig(data=1, fsdp=32), chips)
    assert str(error.value) == (
        "mesh {data: 1, fsdp: 32, tensor: 1} does not divide over 2 TPU slices: make data a"
        " multiple of 2, so that fsdp x tensor stays inside a slice of 16 devices"
    )
    with pytest.raises(ValueError, match="slices have different sizes: 16, 8 devices"):
        make_mesh(MeshConfig(), chips[:-8])
