"""Measures the training step on one GPU and that of timm (PyTorch), which runs first and last.

    python benchmarks/gpu_against_timm.py [--model B/16] [--batch 256] [--rounds 5]

bfloat16 computation, float32 parameters, AdamW, 224 pixels, uint8 images that are already on the
device. timm runs with `torch.compile`, autocast, fused attention and the fused optimizer, on the
same tensors. For vit_jax, each row is one way to compute the same step. MFU counts three forward
passes per step, without recomputation, relative to the chip's dense bfloat16 peak (`--peak`, in
TFLOP/s). This needs torch and timm, which are not dependencies.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SIZE, CLASSES = 224, 1000
TIMM_NAMES = {"S/16": "vit_small_patch16_224", "B/16": "vit_base_patch16_224",
              "L/16": "vit_large_patch16_224"}  # fmt: skip
# remat, attention, unroll
WAYS = ("none auto 12", "none auto 1", "dots auto 1", "none cudnn 1")
STEPS = 10  # steps of a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", default="B/16", choices=TIMM_NAMES)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peak", type=float, default=989.4, help="TFLOP/s; the default is that of an H100 or H200"
    )
    parser.add_argument("--ways", nargs="+", default=WAYS, help="each is 'REMAT ATTENTION UNROLL'")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        serve(flags)
        return
    names = ["timm", *flags.ways, "timm again"]
    times, facts = {}, {}
    for name in names:  # one after the other, because each may use all memory
        times[name], facts[name] = measure(name, flags)
    print(f"{flags.model}, batch {flags.batch}, {facts['timm']['device']}")
    print("| step | ms | images/s | MFU | timm's time / this | GiB at the peak |")
    print("|---|---|---|---|---|---|")
    flops = 3 * next(fact["flops"] for fact in facts.values() if "flops" in fact) * flags.batch
    reference = statistics.median(times["timm"] + times["timm again"])
    for name in names:
        seconds = statistics.median(times[name])
        mfu = flops / seconds / flags.peak / 1e12
        print(
            f"| {name} | {1e3 * seconds:.1f} | {flags.batch / seconds:.0f} | {100 * mfu:.1f}% |"
            f" {reference / seconds:.2f} | {facts[name]['peak'] / 2**30:.1f} |"
        )


def measure(name: str, flags: argparse.Namespace) -> tuple[list[float], dict[str, Any]]:
    """Seconds per step for each round, and facts that the worker reports."""
    command = [sys.executable, __file__, "--worker", name, "--model", flags.model]
    command += ["--batch", str(flags.batch), "--rounds", str(flags.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    times, facts = json.loads(done.stdout.splitlines()[-1])
    return times, facts


def serve(flags: argparse.Namespace) -> None:
    """Compiles, then measures a few steps in every round, and prints the results as JSON."""
    run, facts = (timm_step if flags.worker.startswith("timm") else our_step)(flags)
    run(3)
    times = []
    for _ in range(flags.rounds):
        begin = time.perf_counter()
        run(STEPS)
        times.append((time.perf_counter() - begin) / STEPS)
    print(json.dumps((times, facts())), flush=True)


Built = tuple[Callable[[int], None], Callable[[], dict[str, Any]]]


def our_step(flags: argparse.Namespace) -> Built:
    """Returns a function that runs some steps and waits, and one that returns facts afterwards."""
    import jax
    import numpy as np

    from vit_jax.config import default_config, resolve
    from vit_jax.data.record import DataFacts
    from vit_jax.models import flops
    from vit_jax.parallel.mesh import make_mesh, to_global
    from vit_jax.training import state as state_lib
    from vit_jax.training.design import design

    recipe = default_config()
    recipe.image_size, recipe.batch_size = (SIZE, SIZE), flags.batch
    recipe.model.name, recipe.model.dtype = flags.model, "bfloat16"
    remat, attention, unroll = flags.worker.split()
    recipe.model.remat, recipe.model.attention = remat, attention
    recipe.model.unroll = int(unroll)
    recipe.augment = ("value_range",)
    recipe.optimizer.clip_norm = 0.0
    config = resolve(recipe)
    plan = design(
        config, DataFacts(train_size=1_281_167, num_classes=CLASSES), make_mesh(config.mesh)
    )
    host = {
        "image": np.random.default_rng(0).integers(0, 256, (flags.batch, SIZE, SIZE, 3), np.uint8),
        "label": np.arange(flags.batch, dtype=np.int32) % CLASSES,
        "sample_index": np.zeros((flags.batch, 2), np.uint32),
    }
    with jax.set_mesh(plan.mesh):
        batch = to_global(host, plan.mesh, batch_size=flags.batch)
        state = state_lib.create(plan.options, plan.optimizer, abstract=plan.abstract, seed=0)
    holder = {"state": state}

    def run(steps: int) -> None:
        with jax.set_mesh(plan.mesh):
            for _ in range(steps):
                holder["state"], metrics = plan.step(holder["state"], batch, {})
            jax.block_until_ready((holder["state"], metrics))

    def facts() -> dict[str, Any]:
        device = jax.devices()[0]
        stats = device.memory_stats() or {}
        peak = stats.get("peak_bytes_in_use", 0)
        return {"flops": flops.forward(plan.options), "peak": peak, "device": device.device_kind}

    return run, facts


def timm_step(flags: argparse.Namespace) -> Built:
    """Like `our_step`, for timm."""
    import timm  # type: ignore[import-not-found]
    import torch  # type: ignore[import-not-found]

    torch.set_float32_matmul_precision("high")
    model = timm.create_model(TIMM_NAMES[flags.model], num_classes=CLASSES).cuda().train()
    compiled = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    images = torch.randint(0, 256, (flags.batch, 3, SIZE, SIZE), dtype=torch.uint8).cuda()
    labels = (torch.arange(flags.batch) % CLASSES).cuda()

    def run(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast("cuda", torch.bfloat16):
                logits = compiled((images.float() / 255 - 0.5) / 0.5)
                loss = torch.nn.functional.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()

    def facts() -> dict[str, Any]:
        return {"peak": torch.cuda.max_memory_allocated(), "device": torch.cuda.get_device_name()}

    return run, facts


if __name__ == "__main__":
    main()
