"""The state of a run is created where it lives, and takes the memory that the mesh says."""

import math
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.compare import assert_close, assert_same_bits
from tests.models import tiny
from vit_jax.config import MeshConfig
from vit_jax.parallel.mesh import AXES, make_mesh
from vit_jax.training import state

OPTIONS = tiny.options(num_classes=16, depth=5)
ADAM = optax.adam(1e-3)


def one_device() -> Mesh:
    auto = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), AXES, axis_types=auto, devices=jax.devices()[:1])


def create(mesh: Mesh, **changes) -> state.State:
    abstract = state.abstract_state(OPTIONS, ADAM, average=True, mesh=mesh)
    made = state.create(OPTIONS, ADAM, abstract=abstract, seed=0, **changes)
    jax.tree.map(lambda leaf, s: leaf.sharding == s.sharding or pytest.fail(), made, abstract)
    return made


def bytes_of(array: jax.Array, device: jax.Device) -> int:
    return sum(s.data.nbytes for s in array.addressable_shards if s.device == device)


@pytest.mark.parametrize(
    ("sizes", "low", "high"),
    [
        ({"data": 8}, 1, 1),
        ({"data": 1, "fsdp": 8}, 1 / 8, 1 / 8),
        # What `tensor` does not split, norms and embeddings, is halved, the rest quartered.
        ({"data": 2, "fsdp": 2, "tensor": 2}, 1 / 4, 0.3),
        ({"data": 1, "fsdp": 4, "tensor": 2}, 1 / 8, 0.15),
    ],
)
def test_the_memory_of_a_device_shrinks_as_the_mesh_says(sizes, low, high) -> None:
    made = create(make_mesh(MeshConfig(**sizes)), params=tiny.params(OPTIONS))
    for part in ("params", "opt_state", "ema"):
        leaves = [leaf for leaf in jax.tree.leaves(made[part]) if leaf.ndim]
        whole = sum(leaf.nbytes for leaf in leaves)
        for device in jax.devices():
            held = sum(bytes_of(leaf, device) for leaf in leaves)
            assert low * whole <= held <= high * whole, (part, device)


def test_no_parameter_is_ever_whole(monkeypatch) -> None:
    """In the compiled program that draws the state no array is as large as a split parameter."""
    programs: list[str | None] = []
    jit = jax.jit

    def record(function, **options):
        def call(*args):
            compiled = jit(function, **options).lower(*args).compile()
            programs.append(compiled.as_text())
            return compiled(*args)

        return call

    monkeypatch.setattr(jax, "jit", record)
    made = create(make_mesh(MeshConfig(data=1, fsdp=8)))
    monkeypatch.undo()
    (program,) = programs
    assert program
    sizes = [math.prod(map(int, s.split(","))) for s in re.findall(r"\w\d+\[([\d,]+)\]", program)]
    shards = [leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(made["params"])]
    assert max(sizes) <= 2 * max(shards), "uint32 bits for two halves"
    assert max(leaf.size for leaf in jax.tree.leaves(made["params"])) == 8 * max(shards)


def test_a_new_state_does_not_depend_on_the_mesh() -> None:
    one, many = create(one_device()), create(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    assert_close(one, many, atol=1e-6)
    np.testing.assert_array_equal(one["key"], many["key"])
    assert int(one["step"]) == 0
    assert_same_bits(one["params"], one["ema"])


@pytest.mark.parametrize(
    ("seed", "key"), [(0, [1797259609, 2579123966]), (2**32 - 1, [2973345818, 897673333])]
)
def test_the_key_of_a_run_is_that_of_every_earlier_version(seed, key) -> None:
    """Whether its parameters are drawn or given; not the one that draws them."""
    mesh = one_device()
    abstract = state.abstract_state(OPTIONS, ADAM, average=False, mesh=mesh)
    for params in (None, tiny.params(OPTIONS)):
        made = state.create(OPTIONS, ADAM, abstract=abstract, seed=seed, params=params)
        assert np.asarray(made["key"]).tolist() == key
        assert "ema" not in made


def test_given_parameters_are_placed() -> None:
    given = tiny.params(OPTIONS)
    made = create(make_mesh(MeshConfig(data=1, fsdp=8)), params=given)
    kernel = made["params"]["encoder"]["blocks"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(kernel, given["encoder/blocks/mlp/fc1/kernel"])
    np.testing.assert_array_equal(made["ema"]["head"]["bias"], given["head/bias"])
    assert kernel.addressable_shards[0].data.shape == (5, 32 // 8, 48)


def test_parameters_are_counted() -> None:
    _, shapes = state.abstract_params(tiny.options())
    assert state.count(shapes) == sum(a.size for a in tiny.params(tiny.options()).values())
