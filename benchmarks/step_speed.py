"""Measures the training step of `configs/cifar10.py` alone, on images that are on the device.

python benchmarks/step_speed.py [--models patch4 resnet18] [--fields model.dtype=bfloat16]
"""

import argparse
import pathlib
import statistics
import time
from typing import Any

import jax
import numpy as np

from vit_jax.commands import configs
from vit_jax.data.record import DataFacts
from vit_jax.models import flops
from vit_jax.parallel.mesh import make_mesh, to_global
from vit_jax.training import state as state_lib
from vit_jax.training.design import design

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 100  # of a measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="+", default=["patch4", "patch2", "resnet18"])
    parser.add_argument("--fields", nargs="+", default=[], help="fields of the config, as a.b=c")
    flags = parser.parse_args()
    print("| model | parameters | GFLOPs/image, step | images/s | device |\n|---|---|---|---|---|")
    for model in flags.models:
        one = step_speed(model, [f"--config.{field}" for field in flags.fields])
        print(
            f"| {model} | {one['parameters']:,} | {one['gflops_per_image']:.3f} |"
            f" {one['images_per_second']:.0f} | {one['device']} |",
            flush=True,
        )


def step_speed(model: str, overrides: list[str]) -> dict[str, Any]:
    """Images per second of the training step alone, and the floating-point operations of it."""
    config = configs.from_file(f"{ROOT / 'configs/cifar10.py'}:{model}", overrides)
    plan = design(config, DataFacts(train_size=50_000, num_classes=10), make_mesh(config.mesh))
    size, rng = config.batch_size, np.random.default_rng(0)
    host = {
        name: rng.integers(0, 10, shape.shape).astype(shape.dtype)
        for name, shape in plan.batch.items()
    }
    with jax.set_mesh(plan.mesh):
        batch = to_global(host, plan.mesh, batch_size=size)
        state = state_lib.create(plan.options, plan.optimizer, abstract=plan.abstract, seed=0)
        rates = []
        for _ in range(4):  # the first round compiles
            begin = time.perf_counter()
            for _ in range(STEPS):
                state, metrics = plan.step(state, batch, {})
            jax.block_until_ready((state, metrics))
            rates.append(STEPS * size / (time.perf_counter() - begin))
    rate, each = statistics.median(rates[1:]), 3 * flops.forward(plan.options)
    return {
        "images_per_second": rate,
        "gflops_per_image": each / 1e9,
        "device": jax.devices()[0].device_kind,
        "parameters": state_lib.count(plan.shapes),
    }


if __name__ == "__main__":
    main()
