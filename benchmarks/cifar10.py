"""Trains the models of `configs/cifar10.py` with several seeds and rates, and prints a table.

    python benchmarks/cifar10.py --data DIR --out results.json [--models patch4 resnet18] \
        [--rates 1e-4 1e-3] [--seeds 3] [--parallel 4] [-- --config.model.dtype=bfloat16]

Every run is the command `train` in a process of its own; `--parallel` of them share the device.
Runs that end within `--seconds` count, in the order seed, rate, model. `--speed` first measures the
training step of each model alone, on images that are already on the device.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
STEPS = 100  # of a speed measurement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, help="folder with train/CLASS and test/CLASS")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="JSON file of the results")
    parser.add_argument("--models", nargs="+", default=["patch4", "patch2", "resnet18"])
    parser.add_argument("--rates", nargs="+", default=["1e-4"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="fields of the config, after --")
    flags = parser.parse_args()
    if flags.worker:
        print(json.dumps(step_speed(flags.worker, flags.overrides)))
        return
    end = time.monotonic() + flags.seconds
    speeds = {model: speed(model, flags) for model in flags.models} if flags.speed else {}
    runs = list(itertools.product(range(flags.seeds), flags.rates, flags.models))
    results: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(flags.parallel) as pool,
    ):
        pending = [pool.submit(train, pathlib.Path(folder), run, flags, end) for run in runs]
        for done in concurrent.futures.as_completed(pending):
            results += done.result()
            flags.out.write_text(json.dumps({"speeds": speeds, "runs": results}, indent=1))
    print(report(results, speeds))


def train(
    folder: pathlib.Path, run: tuple[int, str, str], flags: argparse.Namespace, end: float
) -> list[dict[str, Any]]:
    """Trains one run until `end` at the latest, and returns a row for each of its evaluations."""
    seed, rate, model = run
    if time.monotonic() > end:
        return []
    workdir = folder / f"{model}-{rate}-{seed}"
    command = [*(sys.executable, "-m", "vit_jax", "train"), f"--workdir={workdir}"]
    command += [f"--config={ROOT / 'configs/cifar10.py'}:{model}", f"--config.seed={seed}"]
    command += [f"--config.data.path={flags.data}", f"--config.optimizer.learning_rate={rate}"]
    begin = time.monotonic()
    with (folder / f"{workdir.name}.log").open("w") as log:
        try:
            done = subprocess.run(
                [*command, *flags.overrides],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=max(end - begin, 1),
            )
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = "out of time"
    seconds = time.monotonic() - begin
    tail = pathlib.Path(log.name).read_text().splitlines()[-1:]
    print(f"{workdir.name}: {ended} after {seconds:.0f} s: {''.join(tail)[:200]}", flush=True)
    metrics = workdir / "metrics.jsonl"
    lines = map(json.loads, metrics.read_text().splitlines()) if metrics.exists() else ()
    row = {"model": model, "rate": rate, "seed": seed}
    return [row | line for line in lines if "eval_top1" in line]


def speed(model: str, flags: argparse.Namespace) -> dict[str, Any]:
    """`step_speed` in a process of its own, so that no run shares the device with it."""
    command = [*(sys.executable, __file__, f"--worker={model}"), "--data=", "--out=", "--"]
    paths = os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(
        [*command, *flags.overrides], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def step_speed(model: str, overrides: list[str]) -> dict[str, Any]:
    """Images per second of the training step alone, and the floating-point operations of it."""
    import jax
    import numpy as np

    from vit_jax.commands import configs
    from vit_jax.data.record import DataFacts
    from vit_jax.models import flops
    from vit_jax.parallel.mesh import make_mesh, to_global
    from vit_jax.training import state as state_lib
    from vit_jax.training.design import design

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


def report(results: list[dict[str, Any]], speeds: dict[str, dict[str, Any]]) -> str:
    """A table with the mean top-1 and the smallest and largest one, for each evaluation."""
    lines = [
        "| model | rate | step | runs | top-1: mean (smallest to largest) |",
        "|---|---|---|---|---|",
    ]
    rows = sorted(results, key=lambda row: (row["model"], float(row["rate"]), row["step"]))
    for key, group in itertools.groupby(
        rows, key=lambda row: (row["model"], row["rate"], row["step"])
    ):
        found = [100 * row["eval_top1"] for row in group]
        spread = f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        lines.append(f"| {' | '.join(map(str, key))} | {len(found)} | {spread} |")
    if speeds:
        lines += [
            "",
            "| model | parameters | GFLOPs/image, step | images/s | device |",
            "|---|---|---|---|---|",
        ]
    for model, found_speed in speeds.items():
        one = found_speed
        lines.append(
            f"| {model} | {one['parameters']:,} | {one['gflops_per_image']:.3f} |"
            f" {one['images_per_second']:.0f} | {one['device']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
