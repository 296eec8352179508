"""How arrays of a model lie on the devices of a mesh, and in their memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.config import MeshConfig
from vit_jax.models import attention, sharding
from vit_jax.parallel.mesh import make_mesh


def pretend(monkeypatch) -> None:
    """From here on, what would be run on TPUs is run on the simulated devices."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, tpu, default: tpu(x))


@pytest.fixture
def on_tpu(monkeypatch):
    pretend(monkeypatch)


def test_every_device_fixes_the_order_of_its_own_part(on_tpu) -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    parts = jax.NamedSharding(mesh, P(("data", "fsdp"), "tensor"))
    x = jax.device_put(np.arange(8 * 4 * 5 * 6, dtype=np.float32).reshape(8, 4, 5, 6), parts)
    with jax.set_mesh(mesh):
        compiled = jax.jit(lambda x: sharding.row_major(2 * x)).lower(x).compile()
        y = compiled(x)
    assert y.sharding == parts and "all-" not in compiled.as_text(), "nothing is gathered"
    np.testing.assert_array_equal(y, 2 * np.asarray(x))


@pytest.mark.parametrize("shape", [(8, 3, 5, 6), (6, 4, 5, 6)])
def test_what_the_mesh_cannot_split_is_left_alone(on_tpu, shape) -> None:
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        assert "layout_constraint" not in str(jax.make_jaxpr(sharding.row_major)(jnp.zeros(shape)))
    assert "layout_constraint" not in str(jax.make_jaxpr(sharding.row_major)(jnp.zeros(shape)))


@pytest.mark.parametrize(
    ("shape", "fixed"),
    [
        pytest.param((512, 197, 8), True, id="tokens"),
        pytest.param((512, 197, 2, 4), True, id="heads"),
        pytest.param((512, 65, 8), True, id="more than half of the lanes"),
        pytest.param((512, 64, 8), False, id="few tokens"),
        pytest.param((512, 256, 8), False, id="tokens that fill the lanes"),
        pytest.param((256, 197, 8), False, id="64 images on a device"),
        pytest.param((514, 197, 8), False, id="images that the mesh does not split"),
    ],
)
def test_images_are_kept_apart_where_they_would_fill_the_lanes(on_tpu, shape, fixed) -> None:
    ordered = lambda x: sharding.by_image(x, tensor=2)  # noqa: E731
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        jaxpr = str(jax.make_jaxpr(ordered)(jnp.zeros(shape)))
    assert ("layout_constraint" in jaxpr) == fixed
    assert "layout_constraint" not in str(jax.make_jaxpr(ordered)(jnp.zeros(shape))), "no mesh"


def test_a_mesh_may_have_a_batch_axis_only(on_tpu) -> None:
    x = np.arange(512 * 65 * 2, dtype=np.float32).reshape(512, 65, 2)
    with jax.set_mesh(jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))):
        y = jax.jit(lambda x: sharding.by_image(x, tensor=2))(x)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(("attention", "fixed"), [("recompute", True), ("xla", False)])
def test_a_model_keeps_images_apart_unless_its_attention_is_that_of_jax(
    monkeypatch, attention, fixed
) -> None:
    graph, state = nnx.split(tiny.model(image_size=(72, 80), attention=attention))
    pretend(monkeypatch)
    for images, expected in ((8 * sharding.LANES, fixed), (8, False)):
        batch = jax.ShapeDtypeStruct((images, 72, 80, 3), jnp.float32)
        with jax.set_mesh(make_mesh(MeshConfig(data=8))):
            jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, batch)
        assert ("layout_constraint" in str(jaxpr)) == expected


def test_patches_beside_the_class_token_stay_in_the_order_of_their_axes(monkeypatch) -> None:
    images = tiny.images(8)

    def run(kind: str) -> tuple[jax.Array, bool]:
        graph, state = nnx.split(tiny.model(attention=kind))
        model = jax.jit(lambda state, x: nnx.merge(graph, state)(x))
        with jax.set_mesh(make_mesh(MeshConfig(data=8))):
            jaxpr = str(jax.make_jaxpr(model)(state, images))
            return model(state, images), "layout_constraint" in jaxpr

    pretend(monkeypatch)
    expected, fixed = run("recompute")
    assert not fixed
    found, fixed = run("streams")
    assert fixed
    assert_close(found, expected, scaled=1e-5)


def test_attention_in_this_order_has_the_same_values_and_gradients(monkeypatch) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [jax.random.normal(key, (4 * sharding.LANES, 130, 2, 2)) for key in keys]

    def run() -> tuple[jax.Array, ...]:
        with jax.set_mesh(make_mesh(MeshConfig(data=4, tensor=2))):
            attend = functools.partial(attention.attend, bias=None, unrolled=True, ordered=True)
            loss = lambda *x: jnp.square(attend(*x)).sum()  # noqa: E731
            return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*inputs))

    expected = run()
    pretend(monkeypatch)
    for one, other in zip(run(), expected, strict=True):
        assert_close(one, other, scaled=1e-6)
