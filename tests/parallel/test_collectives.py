"""What crosses the devices in a compiled step: parameters and gradients, never the batch."""

import math
import re

import jax
import numpy as np
import pytest

from vit_jax.config import MeshConfig, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.parallel.mesh import make_mesh, to_global
from vit_jax.training.design import design

# Large enough that moving the batch would cost more than moving the parameters.
BATCH, SIDE, TOKENS = 64, 64, 17


@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 4}])
def test_no_activation_is_gathered_or_summed_over_the_batch_axes(mesh):
    moved = collectives(MeshConfig(**mesh))
    assert moved, "no collective found in the compiled text"
    # Activations have the axis of tokens; parameters of this model do not but for the positions.
    tokens = [shape for _, shape in moved if shape[:1] != (1,) and TOKENS in shape[1:]]
    assert not tokens, tokens


def test_fsdp_gathers_parameters_and_data_parallelism_does_not():
    kinds = {kind for kind, shape in collectives(MeshConfig(data=8)) if len(shape) > 2}
    assert "all-gather" not in kinds
    gathered = {
        shape for kind, shape in collectives(MeshConfig(data=1, fsdp=8)) if kind == "all-gather"
    }
    assert (64, 3, 8, 8) in gathered  # the fused query, key and value of one layer


def test_fsdp_scatters_the_gradients_of_kernels():
    moved = collectives(MeshConfig(data=1, fsdp=8))
    kernels = {64 * 3 * 64, 64 * 64, 64 * 128, 64 * 24}  # fused, output, MLP, head
    # A part is padded to full tiles, so only the number of the gradients is known.
    assert sum(kind == "reduce-scatter" for kind, _ in moved) == len(kernels) + 1  # fc1 and fc2
    assert not kernels & {math.prod(shape) for kind, shape in moved if kind == "all-reduce"}


def test_micro_batches_take_rows_that_are_on_their_device():
    moved = collectives(MeshConfig(data=8), accumulate=4)
    images = [shape for _, shape in moved if sorted(shape)[-2:] == [SIDE, SIDE] and 3 in shape]
    assert moved and not images, images


def collectives(config: MeshConfig, *, accumulate: int = 1) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and shape of every array that a training step moves between devices."""
    recipe = default_config()
    recipe.image_size, recipe.batch_size = (SIDE, SIDE), BATCH
    recipe.model.name, recipe.model.width, recipe.model.depth = "Ti/16", 64, 3
    recipe.model.mlp_dim, recipe.model.num_heads = 128, 8
    recipe.optimizer.accumulate = accumulate
    mesh = make_mesh(config)
    plan = design(resolve(recipe), DataFacts(train_size=BATCH, num_classes=24), mesh)
    host: dict[str, np.ndarray] = {
        "image": np.zeros((BATCH, SIDE, SIDE, 3), np.uint8),
        "label": np.zeros(BATCH, np.int32),
        "sample_index": np.zeros((BATCH, 2), np.uint32),
    }
    with jax.set_mesh(mesh):
        batch = to_global(host, mesh, batch_size=BATCH)
        text = plan.step.lower(plan.abstract, batch, {}).compile().as_text()
    found = []
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    pattern = rf"= (.*?) ({kinds})(?:-start)?\("
    for result, kind in re.findall(pattern, text):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            found.append((kind, tuple(int(n) for n in shape.split(",") if n)))
    return found
