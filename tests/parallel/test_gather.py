"""Products with split kernels: the results of plain products, and what they move."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.config import MeshConfig
from vit_jax.parallel.gather import Product
from vit_jax.parallel.mesh import BATCH, make_mesh

KERNEL = (32, 3, 8, 4)  # D, 3, H, d


@pytest.mark.parametrize(
    ("mesh", "axes"),
    [
        ({"data": 1, "fsdp": 8}, ("fsdp", None, None, None)),
        ({"data": 2, "fsdp": 4}, (None, None, None, "fsdp")),
        ({"data": 2, "fsdp": 2, "tensor": 2}, ("fsdp", None, "tensor", None)),
    ],
)
@pytest.mark.parametrize("rows", [16, 3])
def test_a_product_has_the_gradients_of_a_plain_one_and_scatters_those_of_its_kernel(
    mesh, axes, rows
) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (rows, 5, 32)), jax.random.normal(keys[1], KERNEL)
    weights = jax.random.normal(keys[2], (rows, 5, *KERNEL[1:]))

    def gradients(product):
        def loss(x, kernel):
            return jnp.sum(product(x, kernel, (((2,), (0,)), ((), ()))) * weights)

        return jax.value_and_grad(loss, argnums=(0, 1))

    expected = gradients(jax.lax.dot_general)(x, kernel)
    placed = make_mesh(MeshConfig(**mesh))
    splits = NamedSharding(placed, BATCH if rows == 16 else P()), NamedSharding(placed, P(*axes))
    with jax.set_mesh(placed):
        compiled = (
            jax.jit(gradients(Product(axes)), in_shardings=splits, out_shardings=(None, splits))
            .lower(x, kernel)
            .compile()
        )
        found = compiled(jax.device_put(x, splits[0]), jax.device_put(kernel, splits[1]))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )
    text = compiled.as_text()
    whole = "32,3,4,4" if "tensor" in axes else "32,3,8,4"
    gathered = re.findall(r"= f32\[([\d,]*)\]\S* all-gather\(", text)
    assert set(gathered) == {whole}, "the kernel alone, and only along fsdp"
    reduced = re.findall(r"= f32\[([\d,]*)\]\S* all-reduce\(", text)
    assert whole not in reduced
    assert (" reduce-scatter(" in text) == (rows == 16), "3 rows do not divide over the devices"
