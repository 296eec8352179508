"""Compares the time that `plan` predicts with published times of training runs on TPUs.

python benchmarks/published_steps.py [--only TEXT]

It compiles each step and prints the table of docs/plan.md. The authors' programs were not scanned
and recomputed nothing, so the blocks are unrolled. All blocks cost the same, so steps of 1 and of 3
blocks are compiled and the time is extrapolated to the depth of the model. Results are kept. The
programs are not known in full, so the error contains what they do differently.
"""

import argparse
import dataclasses
import statistics

from vit_jax.commands import configs
from vit_jax.data.record import DataFacts
from vit_jax.errors import RunFailed
from vit_jax.planning import compiling, plan, topologies
from vit_jax.planning.job import Job

IMAGENET, I21K, JFT = 1_281_167, 14_197_122, 303_000_000
DAY = 86_400
FEW, MORE = 1, 3  # blocks of the steps that are compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A published run: its speed, where it is stated, and a recipe with the same step."""

    name: str
    speed: float  # images per second on the whole topology
    source: str
    topology: str
    recipe: str
    overrides: tuple[str, ...] = ()
    classes: int = 1000
    images: int = IMAGENET  # of the data: the length of a run is a constant of its step
    depth: int = 0  # blocks, if the step is extrapolated to them


_DEPTH = {"L/16": 24, "H/14": 32}


def _mae(size: str, hours: float, *decoder: str) -> Run:
    depth = "1" if decoder else "8"
    return Run(
        name=f"MAE {size}, decoder depth {depth}",
        speed=800 * IMAGENET / (hours * 3600),
        source=f"arXiv 2111.06377, table 2: 800 epochs in {hours} h on 128 cores",
        topology="v3-128",
        recipe=f"configs/mae.py:{size}",
        overrides=decoder,
        depth=_DEPTH[size],
    )


def _vit(model: str, days: float, *, images: float, what: str, variant: str) -> Run:
    cores = 256  # the paper states the product of cores and days only
    return Run(
        name=f"ViT {model} on {what}",
        speed=images / (days * DAY) * cores,
        source=f"arXiv 2010.11929, table 2: {days:,.0f} days of a TPUv3 core",
        topology=f"v3-{cores}",
        recipe=f"configs/vit.py:{variant}",
        overrides=("--config.data.name=x",),
        depth=_DEPTH[model],
        images=JFT,
        classes=18_291 if what == "JFT" else 21_843,
    )


_SHALLOW = "--config.model.decoder.depth=1"
_22B = (
    *("--config.data.name=x", "--config.batch_size=65536", "--config.model.width=6144"),
    *("--config.model.depth=48", "--config.model.mlp_dim=24576", "--config.model.num_heads=48"),
    *("--config.model.qk_norm=True", "--config.model.class_token=False"),
    *("--config.model.pool=map", "--config.model.remat=full", "--config.mesh.fsdp=256"),
    "--config.mesh.tensor=4",
)
RUNS = (
    Run(
        name="ViT S/16, 90 epochs",
        speed=1024 / 0.210,
        source="big_vision, vit_s16_i1k: the log has 210 ms a step",
        topology="v3-8",
        recipe="configs/plain_vit.py",
        depth=12,
    ),
    Run(
        name="BiT R50x1",
        speed=4096 / 0.069,
        source="big_vision, bit_i1k: the log has 69 ms a step",
        topology="v3-128",
        recipe="configs/vit.py:R50x1-jft",
        images=JFT,
        overrides=("--config.data.name=x",),
    ),
    _mae("L/16", 15.4),
    _mae("L/16", 11.6, _SHALLOW),
    _mae("H/14", 34.5),
    _mae("H/14", 29.3, _SHALLOW),
    _vit("L/16", 680, images=14 * JFT, what="JFT", variant="L/16-jft"),
    _vit("H/14", 2500, images=14 * JFT, what="JFT", variant="H/14-jft"),
    _vit("L/16", 230, images=90 * I21K, what="ImageNet-21k", variant="L/16-i21k"),
    Run(
        name="ViT 22B",
        speed=1150 * 1024 / 256,
        source="arXiv 2302.05442, section 4: 1,150 tokens per second and core, 1024 chips of v4",
        topology="v4-2048",
        recipe="configs/vit.py:H/14-jft",
        overrides=_22B,
        images=JFT,
        classes=29_593,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", default="", help="only runs with this text in their names")
    flags = parser.parse_args()
    print("| run | topology | published images/s | predicted | error | MFU | source |")
    print("|---|---|---|---|---|---|---|")
    errors = []
    with compiling.Compiler(limit=3600) as compiler:
        for run in RUNS:
            if flags.only in run.name and (error := _row(compiler, run)) is not None:
                errors.append(abs(error))
    if errors:
        print(f"\nmedian of the absolute errors {statistics.median(errors):.0%}")


def _row(compiler: compiling.Compiler, run: Run) -> float | None:
    """Prints the row of a run, and returns the relative error of the predicted time."""
    try:
        speed, mfu = _predicted(compiler, run)
    except (ValueError, RunFailed) as failure:
        print(f"| {run.name} | {run.topology} | {run.speed:,.0f} | {failure} | | | |", flush=True)
        return None
    error = run.speed / speed - 1
    numbers = f"{run.speed:,.0f} | {speed:,.0f} | {error:+.0%} | {mfu:.0%}"
    print(f"| {run.name} | {run.topology} | {numbers} | {run.source} |", flush=True)
    return error


def _predicted(compiler: compiling.Compiler, run: Run) -> tuple[float, float]:
    """The images per second and the MFU of a run."""
    if not run.depth:
        found = _plan(compiler, run)
        return found.images_per_second, found.mfu
    few, more = (
        _plan(
            compiler,
            run,
            f"--config.model.depth={blocks}",
            "--config.model.unroll=8",  # also all blocks of a decoder
            "--config.model.remat=none",
        )
        for blocks in (FEW, MORE)
    )
    times = (run.depth - FEW) / (MORE - FEW)
    seconds = few.seconds + times * (more.seconds - few.seconds)
    flops = few.step.flops + times * (more.step.flops - few.step.flops)
    topology = few.topology
    mfu = flops / (seconds * topology.devices * topology.chip.peak)
    return few.config.batch_size / seconds, mfu


def _plan(compiler: compiling.Compiler, run: Run, *overrides: str) -> plan.Plan:
    """The plan of the step of a run. Raises ValueError if it does not fit."""
    config = configs.from_file(run.recipe, (*run.overrides, *overrides))
    facts = DataFacts(train_size=run.images, num_classes=run.classes)
    topology = topologies.parse(run.topology)
    found = plan.make(compiler, Job(config=config, facts=facts, topology=topology))
    if found.timeline is None:
        raise ValueError(f"needs {found.result.needed / 2**30:.1f} GiB per device")
    return found


if __name__ == "__main__":
    main()
