"""Measures Python time on the main thread per training step, and of a bare jit to compare with.

    python benchmarks/dispatch.py [--depth 12]

The lower bound is `jax.jit` of the same step over a flat list of the state's arrays. The model is
tiny, so that the time until the call returns is measured, not the time of the device. The two
alternate, and the minimum counts.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.config import default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.parallel.mesh import make_mesh, to_global
from vit_jax.training import state as state_lib
from vit_jax.training.design import design

BATCH, SIZE, CLASSES = 4, 16, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=400)
    flags = parser.parse_args()
    step, state, batch = build(flags.depth)
    leaves, treedef = jax.tree.flatten(state)
    names = list(batch)

    def flat(leaves: list[jax.Array], arrays: list[jax.Array]) -> tuple[Any, Any]:
        new, metrics = step.__wrapped__(
            jax.tree.unflatten(treedef, leaves), dict(zip(names, arrays, strict=True)), {}
        )
        return jax.tree.leaves(new), list(metrics.values())

    bare = jax.jit(flat, donate_argnums=0)
    arrays = list(batch.values())
    leaves = [jnp.copy(leaf) for leaf in leaves]
    times: dict[str, list[float]] = {"vit_jax": [], "bare": []}
    for _ in range(flags.rounds):
        jax.block_until_ready((state, leaves))
        start = time.perf_counter()
        state, metrics = step(state, batch, {})
        times["vit_jax"].append(time.perf_counter() - start)
        jax.block_until_ready((state, metrics))
        start = time.perf_counter()
        leaves, _ = bare(leaves, arrays)
        times["bare"].append(time.perf_counter() - start)
    count = len(leaves)
    print(f"depth {flags.depth}, {count} arrays, microseconds of the main thread per step")
    print("| | minimum | median |")
    print("|---|---|---|")
    for name, values in times.items():
        values = sorted(values[10:])
        print(f"| {name} | {1e6 * values[0]:.0f} | {1e6 * statistics.median(values):.0f} |")
    ratio = min(times["vit_jax"][10:]) / min(times["bare"][10:])
    print(f"ratio of the minima: {ratio:.2f}")


def build(depth: int) -> tuple[Any, Any, dict[str, jax.Array]]:
    """The training step of a tiny model of `depth` blocks, its state and a batch."""
    recipe = default_config()
    recipe.image_size, recipe.batch_size = (SIZE, SIZE), BATCH
    recipe.model.name, recipe.model.depth = "Ti/8", depth
    recipe.model.width, recipe.model.mlp_dim, recipe.model.num_heads = 16, 16, 2
    recipe.augment = ("value_range",)
    recipe.optimizer.weight_decay = 0.1
    facts = DataFacts(train_size=1000, num_classes=CLASSES)
    config = resolve(recipe)
    plan = design(config, facts, make_mesh(config.mesh))
    state = state_lib.create(plan.options, plan.optimizer, abstract=plan.abstract, seed=0)
    batch = {
        "image": np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "label": np.arange(BATCH, dtype=np.int32),
        "sample_index": np.zeros((BATCH, 2), np.uint32),
    }
    return plan.step, state, to_global(batch, plan.mesh, batch_size=BATCH)


if __name__ == "__main__":
    main()
