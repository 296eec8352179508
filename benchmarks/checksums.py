"""Measures the cost of checksums when a checkpoint is saved and restored.

    python -m benchmarks.checksums [--model S/16] [--repeat 5]

A training state of the model with Adam's moments and an average (352 MB for S/16) is saved and
restored several times; times are medians. Checksums are written in the background while the run
continues. Here their time is included in the time of saving.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import absl.logging
import jax
import optax

from vit_jax.checkpoints import integrity
from vit_jax.checkpoints.store import Store
from vit_jax.config import CheckpointConfig, MeshConfig
from vit_jax.models import zoo
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import state

KEEP = CheckpointConfig(keep_last=1, keep_best=0)


def measure(model: str, *, folder: pathlib.Path, repeat: int) -> dict[str, list[float]]:
    """Seconds of every repetition: saving, restoring, and the checksums included in each."""
    options, rule = zoo.options(model), optax.adam(1e-3)
    abstract = state.abstract_state(options, rule, average=True, mesh=make_mesh(MeshConfig()))
    filled = state.create(options, rule, abstract=abstract, seed=0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(filled))
    print(f"{model}: {size / 1e6:.0f} MB in {folder}")
    seconds: dict[str, list[float]] = {
        name: [] for name in ("save", "written", "restore", "compared")
    }
    for step in range(1, repeat + 1):
        with Store(folder, KEEP) as saved:
            start = time.perf_counter()
            saved.save(step, filled, {})
            saved.wait()
            seconds["save"].append(time.perf_counter() - start)
        path = saved.path / str(step)
        start = time.perf_counter()
        integrity.write(path, step=step)
        seconds["written"].append(time.perf_counter() - start)
        with Store(folder, KEEP, read_only=True) as saved:
            start = time.perf_counter()
            jax.block_until_ready(saved.restore(abstract, step=step))
            seconds["restore"].append(time.perf_counter() - start)
        start = time.perf_counter()
        integrity.verify(path, step=step, items=("params", "ema", "rest"))
        seconds["compared"].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="S/16")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    absl.logging.set_verbosity(absl.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(options.model, folder=pathlib.Path(folder), repeat=options.repeat)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for whole, part in (("save", "written"), ("restore", "compared")):
        share = middle[part] / (middle[whole] - middle[part])
        print(
            f"{whole}: {middle[whole]:.3f} s, of which checksums {middle[part]:.3f} s:"
            f" {100 * share:.1f}% more than without"
        )


if __name__ == "__main__":
    main()
