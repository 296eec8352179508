"""Python time on the main thread per training step, against a bare jit of the same arrays.

    python benchmarks/dispatch.py [--depth 12]

The floor is `jax.jit` of the same step over a flat list of the state's arrays. Both are tiny
models, so that what is measured is the time until the call returns, not the device's; the runs
take turns and the minimum counts.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.config import MeshConfig, OptimizerConfig
from vit_jax.models import zoo
from vit_jax.objectives import classification
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import optimizer as optimizer_lib
from vit_jax.training import state as state_lib
from vit_jax.training import step as step_lib

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
            jax.tree.unflatten(treedef, leaves), dict(zip(names, arrays, strict=True))
        )
        return jax.tree.leaves(new), list(metrics.values())

    bare = jax.jit(flat, donate_argnums=0)
    arrays = list(batch.values())
    leaves = [jnp.copy(leaf) for leaf in leaves]
    times: dict[str, list[float]] = {"vit_jax": [], "bare": []}
    for _ in range(flags.rounds):
        jax.block_until_ready((state, leaves))
        start = time.perf_counter()
        state, metrics = step(state, batch)
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
    options = zoo.options(
        "Ti/8", width=16, mlp_dim=16, num_heads=2, depth=depth,
        image_size=(SIZE, SIZE), num_classes=CLASSES,
    )  # fmt: skip
    graphdef, shapes = state_lib.abstract_params(options)
    schedule = optax.constant_schedule(1e-3)
    rule = optimizer_lib.make_optimizer(
        OptimizerConfig(rule=optimizer_lib.AdamW(weight_decay=0.1)), schedule, shapes
    )
    mesh = make_mesh(MeshConfig())
    abstract = state_lib.abstract_state(options, rule, average=False, mesh=mesh)
    step = step_lib.make_train_step(
        graphdef,
        prepare=lambda batch, *, key: batch,
        loss=lambda model, batch, *, key: classification.loss(
            model(batch["images"], key=key), batch["targets"], kind="softmax"
        ),
        optimizer=rule,
        schedule=schedule,
        abstract=abstract,
    )
    state = state_lib.create(options, rule, abstract=abstract, seed=0)
    images = np.random.default_rng(0).standard_normal((BATCH, SIZE, SIZE, 3), np.float32)
    batch = {"images": jnp.asarray(images), "targets": jnp.eye(CLASSES)[:BATCH]}
    return step, state, batch


if __name__ == "__main__":
    main()
