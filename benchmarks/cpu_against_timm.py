"""Measures training steps and inference on the CPU, alternating with timm (PyTorch) in one run.

    python benchmarks/cpu_against_timm.py [--timm-python PATH] [--models Ti/16 R50x1] [--rounds 5]

Two worker processes, one for each library, take turns, so that both see the same machine; the
medians of the rounds are compared. Float32, 224 pixels, batch 16, AdamW, all cores. timm is not a
dependency: install torch and timm, or give the Python of an environment that has them.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

BATCH, SIZE, CLASSES = 16, 224, 1000
TIMM_NAMES = {
    "Ti/16": "vit_tiny_patch16_224",
    "S/16": "vit_small_patch16_224",
    "B/16": "vit_base_patch16_224",
    "R50x1": "resnetv2_50x1_bit",
    "R26+S/32": "vit_small_r26_s32_224",
    "ResNet-18": "resnet18",
}
PAGE = ["Ti/16", "S/16", "R26+S/32", "R50x1", "ResNet-18"]  # the models of docs/performance.md
SCANNED = ("Ti/16", "S/16", "B/16", "R26+S/32")  # models with a scan over their blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="+", default=PAGE, choices=TIMM_NAMES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--timm-python", default=sys.executable)
    parser.add_argument("--unroll", type=int, default=1, help="blocks per iteration of the scan")
    parser.add_argument("--worker", choices=("ours", "timm"), help=argparse.SUPPRESS)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        serve({"ours": ours, "timm": timm_steps}[flags.worker], *flags.task.split(), flags.unroll)
        return
    print("| model | task | vit_jax s | timm s | timm / vit_jax | vit_jax GFLOP/s |")
    print("|---|---|---|---|---|---|")
    for model in flags.models:
        for task in ("inference", "train"):
            print(compare(model, task, flags), flush=True)


def compare(model: str, task: str, flags: argparse.Namespace) -> str:
    """One row: medians of alternating rounds."""
    pythons = {"ours": sys.executable, "timm": flags.timm_python}
    workers = {
        name: subprocess.Popen(
            [python, __file__, "--worker", name, "--task", f"{model} {task}",
             "--unroll", str(flags.unroll)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, python in pythons.items()
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in workers}
    info: dict[str, dict[str, float]] = {}
    for name, worker in workers.items():
        assert worker.stdout is not None
        info[name] = json.loads(worker.stdout.readline())
    for _ in range(flags.rounds):
        for name, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            times[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate("stop\n")
    ours_s, timm_s = (statistics.median(times[name]) for name in ("ours", "timm"))
    flops = info["ours"]["flops"] * (3 if task == "train" else 1)
    return (
        f"| {model} | {task} | {ours_s:.3f} | {timm_s:.3f} | {timm_s / ours_s:.2f} |"
        f" {flops / ours_s / 1e9:.0f} |"
    )


def serve(build: Callable[..., tuple[Callable[[], object], float]], *task: str | int) -> None:
    """Warms up, then times one step (the mean of a few) at every line on stdin."""
    step, flops = build(*task)
    step()
    step()
    print(json.dumps({"flops": flops}), flush=True)
    for line in sys.stdin:
        if line.strip() != "go":
            return
        start = time.perf_counter()
        for _ in range(3):
            step()
        print((time.perf_counter() - start) / 3, flush=True)


def ours(model: str, task: str, unroll: int) -> tuple[Callable[[], object], float]:
    """Returns a function that does one step and waits, and the operations of a forward pass."""
    import jax
    import numpy as np

    from vit_jax.config import default_config, resolve
    from vit_jax.data.record import DataFacts
    from vit_jax.models import flops, zoo
    from vit_jax.parallel.mesh import make_mesh, to_global
    from vit_jax.training import state as state_lib
    from vit_jax.training.design import design

    rng = np.random.default_rng(0)
    if task == "inference":
        scanned = {"unroll": unroll} if model in SCANNED else {}
        options = zoo.options(model, **scanned)
        images = rng.standard_normal((BATCH, SIZE, SIZE, 3), np.float32)
        vit = zoo.init(options, key=jax.random.key(0))
        apply = jax.jit(lambda images: vit(images))
        cost = float(flops.forward(options) * BATCH)
        return lambda: apply(images).block_until_ready(), cost

    recipe = default_config()
    recipe.image_size, recipe.batch_size = (SIZE, SIZE), BATCH
    recipe.model.name = model
    if model in SCANNED:
        recipe.model.unroll = unroll
    recipe.augment = ("value_range",)
    recipe.optimizer.clip_norm = 0.0
    config = resolve(recipe)
    facts = DataFacts(train_size=1_281_167, num_classes=CLASSES)
    plan = design(config, facts, make_mesh(config.mesh))
    state = state_lib.create(plan.options, plan.optimizer, abstract=plan.abstract, seed=0)
    host = {
        "image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
        "label": np.arange(BATCH, dtype=np.int32),
        "sample_index": np.zeros((BATCH, 2), np.uint32),
    }
    batch = to_global(host, plan.mesh, batch_size=BATCH)
    holder = {"state": state}

    def run() -> None:
        holder["state"], metrics = plan.step(holder["state"], batch, {})
        jax.block_until_ready((holder["state"], metrics))

    return run, float(flops.forward(plan.options) * BATCH)


def timm_steps(model: str, task: str, unroll: int) -> tuple[Callable[[], object], float]:
    """Like `ours`, for timm, without the operations."""
    import timm  # type: ignore[import-not-found]
    import torch  # type: ignore[import-not-found]

    del unroll
    torch.manual_seed(0)
    vit = timm.create_model(TIMM_NAMES[model], num_classes=CLASSES)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.arange(BATCH)
    if task == "inference":
        vit.eval()

        def infer() -> None:
            with torch.inference_mode():
                vit(images)

        return infer, 0.0
    optimizer = torch.optim.AdamW(vit.parameters(), lr=1e-3)

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(vit(images), labels).backward()
        optimizer.step()

    return train, 0.0


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    main()
