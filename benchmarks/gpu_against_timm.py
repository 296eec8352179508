"""Measures training steps on one GPU and those of timm (PyTorch), side by side in one run.

    python benchmarks/gpu_against_timm.py [--models B/16 L/16] [--rounds 5] [--kernels 12] \
        [--ways "none xla 1" "none cudnn all --xla_gpu_deterministic_ops=false"]

bfloat16 computation, float32 parameters, AdamW, 224 pixels, uint8 images that are already on the
device. timm runs with `torch.compile`, autocast, fused attention and the fused optimizer; it is
measured before and after all ways of vit_jax. A way is "REMAT ATTENTION UNROLL", and flags of XLA
may follow; UNROLL can be "all". MFU counts three forward passes per step, without recomputation,
relative to the chip's dense bfloat16 peak (`--peak`, in TFLOP/s).

Every step is compiled in a process of its own, all at the same time. Then they are measured one
after the other, while the others wait. `--kernels` prints the kernels of each way of vit_jax that
take the most time. This needs torch and timm, which are not dependencies.
"""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

SIZE, CLASSES = 224, 1000
# name in timm, and images of a step that 80 GB can hold without recomputation
MODELS = {
    "S/16": ("vit_small_patch16_224", 256),
    "B/16": ("vit_base_patch16_224", 256),
    "L/16": ("vit_large_patch16_224", 128),
    "H/14": ("vit_huge_patch14_224", 64),
}
WAYS = ("none xla all", "none xla 1", "dots xla 1", "none cudnn all")
STEPS = 10  # steps of a round
PROFILED = 3  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--models", nargs="+", default=["B/16"], choices=MODELS)
    parser.add_argument("--batch", type=int, help="images of a step; the default is the model's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peak", type=float, default=989.4, help="TFLOP/s; the default is that of an H100 or H200"
    )
    parser.add_argument("--ways", nargs="+", default=WAYS, help="see above")
    parser.add_argument("--kernels", type=int, default=0, help="how many to print for each way")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        serve(flags)
        return
    ways = [f"{model} {way}" for model in flags.models for way in ("timm", *flags.ways)]
    workers = {way: _start(way, flags) for way in ways}
    broken = [way for way, worker in workers.items() if not _line(worker)]  # until all are compiled
    again = [way for way in ways if way.endswith("timm")]
    times: dict[str, list[float]] = collections.defaultdict(list)
    facts: dict[str, dict[str, Any]] = {}
    for way in ways + again:
        if way in broken:
            continue
        answer = _ask(workers[way], last=way not in again or way in facts)
        if answer is None:
            broken.append(way)
            continue
        times[way] += answer[0]
        facts[way] = answer[1]
    report(times, facts, flags)
    for way in broken:
        print(f"{way}: failed, see its error above")


def report(
    times: dict[str, list[float]], facts: dict[str, dict[str, Any]], flags: argparse.Namespace
) -> None:
    """Prints a table for each model, and the dearest kernels of each way."""
    for model in flags.models:
        ways = [way for way in times if way.startswith(f"{model} ")]
        batch = _batch(model, flags)
        print(f"\n{model}, batch {batch}, {next((facts[way]['device'] for way in ways), '')}")
        print("| step | ms | images/s | MFU | timm's time / this | GiB at the peak |")
        print("|---|---|---|---|---|---|")
        flops = 3 * next((facts[way]["flops"] for way in ways if "flops" in facts[way]), 0) * batch
        reference = statistics.median(times.get(f"{model} timm", [float("nan")]))
        for way in ways:
            seconds = statistics.median(times[way])
            mfu = flops / seconds / flags.peak / 1e12
            print(
                f"| {way} | {1e3 * seconds:.1f} | {batch / seconds:.0f} | {100 * mfu:.1f}% |"
                f" {reference / seconds:.2f} | {facts[way]['peak'] / 2**30:.1f} |"
            )
    for way, found in facts.items():
        if found.get("kernels"):
            print(f"\n{way}, ms of a step")
            for name, seconds, count in found["kernels"]:
                print(f"{1e3 * seconds:8.2f} {count:5.0f} x {name}")


def _batch(model: str, flags: argparse.Namespace) -> int:
    return int(flags.batch or MODELS[model][1])


Worker = subprocess.Popen[str]


def _start(way: str, flags: argparse.Namespace) -> Worker:
    """A process that compiles the step, and prints a line when it is ready to be measured."""
    model, _, rest = way.partition(" ")
    parts = rest.split()
    xla = " ".join(part for part in parts if part.startswith("--"))
    command = [sys.executable, __file__, "--worker", rest, "--models", model]
    command += ["--batch", str(_batch(model, flags)), "--rounds", str(flags.rounds)]
    command += ["--kernels", str(flags.kernels)]
    own = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()}
    own |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | own,
    )


def _ask(worker: Worker, *, last: bool) -> tuple[list[float], dict[str, Any]] | None:
    """Lets a worker measure its step: the seconds of each round, and facts; None if it failed."""
    assert worker.stdin
    try:
        worker.stdin.write("last\n" if last else "measure\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return None
    answer = _line(worker)
    if last:
        worker.wait()  # its memory is free then
    return tuple(json.loads(answer)) if answer else None


def _line(worker: Worker) -> str:
    """The next line that begins as the workers' lines do; "" if the worker ended."""
    assert worker.stdout
    for line in worker.stdout:
        if line.startswith("> "):
            return line[2:].strip()
    return ""


def serve(flags: argparse.Namespace) -> None:
    """Compiles; then, for each line of the input, measures some rounds and prints the results."""
    run, facts = (timm_step if flags.worker == "timm" else our_step)(flags)
    print("> ready", flush=True)
    for line in sys.stdin:
        run(3)
        times = []
        for _ in range(flags.rounds):
            begin = time.perf_counter()
            run(STEPS)
            times.append((time.perf_counter() - begin) / STEPS)
        print("> " + json.dumps((times, facts())), flush=True)
        if line.strip() == "last":
            break


Built = tuple[Callable[[int], None], Callable[[], dict[str, Any]]]


def our_step(flags: argparse.Namespace) -> Built:
    """Returns a function that runs some steps and waits, and one that returns facts afterwards."""
    import jax
    import numpy as np

    from vit_jax.config import default_config, resolve
    from vit_jax.data.record import DataFacts
    from vit_jax.models import flops, zoo
    from vit_jax.parallel.mesh import make_mesh, to_global
    from vit_jax.training import state as state_lib
    from vit_jax.training.design import design

    recipe = default_config()
    recipe.image_size, recipe.batch_size = (SIZE, SIZE), flags.batch
    recipe.model.name, recipe.model.dtype = flags.models[0], "bfloat16"
    remat, attention, unroll = flags.worker.split()[:3]
    recipe.model.remat, recipe.model.attention = remat, attention
    depth = getattr(zoo.options(flags.models[0]), "depth", 1)
    recipe.model.unroll = depth if unroll == "all" else int(unroll)
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
        step = plan.step.lower(state, batch, {}).compile()
    holder = {"state": state}

    def run(steps: int) -> None:
        with jax.set_mesh(plan.mesh):
            for _ in range(steps):
                holder["state"], metrics = step(holder["state"], batch, {})
            jax.block_until_ready((holder["state"], metrics))

    def facts() -> dict[str, Any]:
        device = jax.devices()[0]
        stats = device.memory_stats() or {}
        return {
            "flops": flops.forward(plan.options),
            "peak": stats.get("peak_bytes_in_use", 0),
            "device": device.device_kind,
            "kernels": kernels(run, flags.kernels) if flags.kernels else [],
        }

    return run, facts


def kernels(run: Callable[[int], None], most: int) -> list[tuple[str, float, float]]:
    """The kernels that take the most time: names, seconds and how often, for one step."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(PROFILED)
        file = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        profile = jax.profiler.ProfileData.from_file(str(file))
    seconds: dict[str, float] = collections.defaultdict(float)
    count: dict[str, int] = collections.defaultdict(int)
    for plane in profile.planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                name = event.name.rstrip("0123456789").rstrip("_.")[:100]
                seconds[name] += event.duration_ns / 1e9 / PROFILED
                count[name] += 1
    dearest = sorted(seconds, key=lambda name: -seconds[name])[:most]
    total = ("all kernels", sum(seconds.values()), sum(count.values()) / PROFILED)
    return [total, *((name, seconds[name], count[name] / PROFILED) for name in dearest)]


def timm_step(flags: argparse.Namespace) -> Built:
    """Like `our_step`, for timm."""
    import timm  # type: ignore[import-not-found]
    import torch  # type: ignore[import-not-found]

    torch.set_float32_matmul_precision("high")
    name = MODELS[flags.models[0]][0]
    model = timm.create_model(name, num_classes=CLASSES).cuda().train()
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

    run(2)  # compiles
    torch.cuda.empty_cache()
    return run, facts


if __name__ == "__main__":
    main()
