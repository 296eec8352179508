"""What the log of a run advises before anything is compiled."""

import pytest
from jax.sharding import AbstractMesh

from vit_jax.models import zoo
from vit_jax.training import advice, state


@pytest.mark.parametrize(
    ("fsdp", "rows", "better"), [(1, 0, 0), (8, 0, 0), (32, 0, 0), (64, 16, 32), (512, 2, 32)]
)
def test_parts_of_kernels_that_tpus_sum_whole_are_noted_with_a_mesh_that_avoids_it(
    fsdp, rows, better
) -> None:
    mesh = AbstractMesh((1, fsdp, 1), ("data", "fsdp", "tensor"))
    shapes = state.abstract_params(zoo.options("L/16", num_classes=10))[1]
    note = advice.thin_parts(shapes, mesh)
    if not rows:
        assert not note
        return
    assert f"leaves {rows} rows" in note and f"--config.mesh.fsdp={better} " in note
