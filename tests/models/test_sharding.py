"""How arrays of a model lie on the devices of a mesh, and in their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.compare import assert_close
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


def test_attention_in_this_order_has_the_same_values_and_gradients(monkeypatch) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = [jax.random.normal(key, (8, 130, 2, 8)) for key in keys]

    def run() -> tuple[jax.Array, ...]:
        with jax.set_mesh(make_mesh(MeshConfig(data=4, tensor=2))):
            loss = lambda *x: jnp.square(attention.attend(*x, None, unrolled=True)).sum()  # noqa: E731
            return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*inputs))

    expected = run()
    pretend(monkeypatch)
    for one, other in zip(run(), expected, strict=True):
        assert_close(one, other, scaled=1e-6)
