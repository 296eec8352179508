"""Compares the time that `plan` predicts with published times of training runs on TPUs.

python benchmarks/published_steps.py [--only TEXT]

It compiles each step and prints the table of docs/plan.md. The step is this package's, in the form
that is closest to the authors' program: plain attention, blocks unrolled, nothing recomputed unless
the source says so, and float32 activations where their code has them. All blocks of a model cost
the same, so steps of one and of two blocks are compiled, and time and memory are extrapolated to
the depth. Results are kept. The programs are not known in full, so the error contains what they do
differently. Where the memory is more than the chip has, the authors or their compiler must have
recomputed a part, which takes longer than predicted.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Mapping
from typing import NamedTuple

from vit_jax.commands import configs
from vit_jax.data.record import DataFacts
from vit_jax.errors import RunFailed
from vit_jax.planning import compiling, plan, topologies
from vit_jax.planning.job import Job

IMAGENET, I21K, JFT = 1_281_167, 14_197_122, 303_000_000
HOUR, DAY = 3600, 86_400
BLOCKS, DECODER = "--config.model.depth", "--config.model.decoder.depth"
PLAIN = "--config.model.attention=xla"
KEPT = "--config.model.remat=none"
FLOAT32 = "--config.model.dtype=float32"  # activations; TPUs multiply in bfloat16 all the same
UNNAMED = "--config.data.name=x"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A published run: its speed or MFU, where it is stated, and a recipe with the same step."""

    name: str
    source: str
    topology: str
    recipe: str
    speed: float = 0.0  # images per second on the whole topology
    mfu: float = 0.0  # of the authors' program, if they state that instead
    overrides: tuple[str, ...] = ()
    classes: int = 1000
    images: int = IMAGENET  # of the data: the length of a run is a constant of its step
    depths: Mapping[str, int] = dataclasses.field(default_factory=dict)  # blocks, by option


class Step(NamedTuple):
    """Predicted seconds of a step, FLOPs of the model on all devices, and bytes of a device."""

    seconds: float
    flops: float
    needed: float


_DEPTH = {"L/16": 24, "H/14": 32}


def _mae(size: str, hours: float, *, decoder: int = 8, masked: bool = True) -> Run:
    """A run of MAE. Without `masked`, its encoder sees all patches, the hidden ones as mask tokens.

    The recipe hides one patch then, since it cannot hide none.
    """
    return Run(
        name=f"MAE {size}, decoder depth {decoder}"
        if masked
        else f"MAE {size}, mask tokens in the encoder",
        speed=800 * IMAGENET / (hours * HOUR),
        source=f"arXiv 2111.06377, table 2: 800 epochs in {hours} h on 128 cores",
        topology="v3-128",
        recipe=f"configs/mae.py:{size}",
        overrides=(PLAIN, KEPT) + (() if masked else ("--config.objective.mask_ratio=0.005",)),
        depths={BLOCKS: _DEPTH[size], DECODER: decoder},
    )


def _vit(model: str, days: float, *, images: float, what: str, variant: str) -> Run:
    cores = 256  # the paper states the product of cores and days only
    return Run(
        name=f"ViT {model} on {what}",
        speed=images / (days * DAY) * cores,
        source=f"arXiv 2010.11929, table 2: {days:,.0f} days of a TPUv3 core",
        topology=f"v3-{cores}",
        recipe=f"configs/vit.py:{variant}",
        overrides=(PLAIN, KEPT, UNNAMED),
        depths={BLOCKS: _DEPTH[model]},
        images=JFT,
        classes=18_291 if what == "JFT" else 21_843,
    )


def _resnet(topology: str, *, speed: float, source: str) -> Run:
    """ResNet-50 with a batch of 1,024, in bfloat16."""
    return Run(
        name="ResNet-50",
        speed=speed,
        source=source,
        topology=topology,
        recipe="configs/finetune.py",
        overrides=(
            "--config.model.name=ResNet-50",
            "--config.model.dtype=bfloat16",
            "--config.image_size=224",
            "--config.batch_size=1024",
            "--config.data.crop=inception",
            "--config.optimizer.name=sgd",
        ),
    )


def _maxtext(size: str, mfu: float, *, chips: int, batch: int, depth: int, width: int) -> Run:
    """Blocks of the same size and as many tokens per chip: sequences of 256, not of 2,048.

    So most of the attention, which is a kernel of its own there, is left out on both sides.
    """
    heads = {6144: 24, 12_288: 32}[width]
    return Run(
        name=f"MaxText {size}, blocks",
        mfu=mfu,
        source="MaxText, configs/tpu/v4/README.md and its script: full recomputation, fsdp",
        topology=f"v4-{2 * chips}",
        recipe="configs/vit.py:H/14-jft",
        overrides=(
            *(PLAIN, UNNAMED, "--config.model.remat=full"),
            *(f"--config.model.width={width}", f"--config.model.mlp_dim={4 * width}"),
            *(f"--config.model.num_heads={heads}", "--config.model.class_token=False"),
            *("--config.model.pool=gap", "--config.model.dropout=0"),
            *(f"--config.mesh.fsdp={chips}", f"--config.batch_size={chips * batch * 2048 // 256}"),
        ),
        depths={BLOCKS: depth},
        images=JFT,
    )


RUNS = (
    Run(
        name="ViT S/16, 90 epochs",
        speed=90 * 0.99 * IMAGENET / (6.5 * HOUR),
        source="big_vision, configs/vit_s16_i1k.py: 6 to 7 h",
        topology="v3-8",
        recipe="configs/plain_vit.py",
        overrides=(PLAIN, KEPT, FLOAT32),
        depths={BLOCKS: 12},
    ),
    Run(
        name="BiT R50x1, 90 epochs",
        speed=90 * 0.99 * IMAGENET / (32 * 60),
        source="big_vision, configs/bit_i1k.py: about 32 min",
        topology="v3-128",
        recipe="configs/vit.py:R50x1-jft",
        overrides=(UNNAMED, FLOAT32, "--config.optimizer.name=sgd"),
        images=JFT,
    ),
    _resnet(
        "v3-8",
        speed=125_100 * 1024 / (4.4 * HOUR),
        source="Flax, examples/imagenet/README.md: 125,100 steps of 1,024 in 4.4 h",
    ),
    _resnet(
        "v3-32",
        speed=1024 / 41.6e-3,
        source="arXiv 2102.06171, table 3: a step of 32 images per core takes 41.6 ms",
    ),
    _mae("L/16", 15.4),
    _mae("L/16", 11.6, decoder=1),
    _mae("L/16", 42.4, masked=False),
    _mae("H/14", 34.5),
    _mae("H/14", 29.3, decoder=1),
    _vit("L/16", 680, images=14 * JFT, what="JFT", variant="L/16-jft"),
    _vit("H/14", 2500, images=14 * JFT, what="JFT", variant="H/14-jft"),
    _vit("L/16", 230, images=90 * I21K, what="ImageNet-21k", variant="L/16-i21k"),
    Run(
        name="SoViT-400m/14 on JFT",
        speed=40e9 / (230_000 * HOUR) * 256,
        source="arXiv 2305.13035, section 5: 40 billion images in 230,000 hours of a TPUv3 core",
        topology="v3-256",
        recipe="configs/scaling.py:g/14",
        overrides=(
            *(PLAIN, KEPT, FLOAT32, UNNAMED, "--config.model.name=So400m/14"),
            "--config.batch_size=4096",
        ),
        depths={BLOCKS: 27},
        images=JFT,
        classes=29_593,
    ),
    _maxtext("22B", 0.567, chips=64, batch=13, depth=48, width=6144),
    _maxtext("52B", 0.560, chips=192, batch=7, depth=32, width=12_288),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", default="", help="only runs with this text in their names")
    flags = parser.parse_args()
    print("| run | topology | published | predicted | error | predicted MFU | GiB | source |")
    print("|---|---|---|---|---|---|---|---|")
    errors = []
    with compiling.Compiler(limit=3600) as compiler:
        for run in RUNS:
            if flags.only in run.name and (error := _row(compiler, run)) is not None:
                errors.append(abs(error))
    if errors:
        print(f"\nmedian of the absolute errors {statistics.median(errors):.0%}")


def _row(compiler: compiling.Compiler, run: Run) -> float | None:
    """Prints the row of a run, and returns the relative error of the predicted time."""
    topology = topologies.parse(run.topology)
    try:
        step, batch = _predicted(compiler, run)
    except (ValueError, RunFailed) as failure:
        print(f"| {run.name} | {run.topology} | | {failure} | | | | |", flush=True)
        return None
    mfu = step.flops / (step.seconds * topology.devices * topology.chip.peak)
    if run.mfu:
        error = run.mfu / mfu - 1
        numbers = f"MFU {run.mfu:.1%} | MFU {mfu:.1%}"
    else:
        error = run.speed / (batch / step.seconds) - 1
        numbers = f"{run.speed:,.0f} images/s | {batch / step.seconds:,.0f} images/s"
    held = f"{step.needed / 2**30:.1f} of {topology.chip.memory / 2**30:.1f}"
    print(
        f"| {run.name} | {run.topology} | {numbers} | {error:+.0%} | {mfu:.0%} | {held} |"
        f" {run.source} |",
        flush=True,
    )
    return error


def _predicted(compiler: compiling.Compiler, run: Run) -> tuple[Step, int]:
    """The step of a run at its full depth, and its batch size."""
    one = dict.fromkeys(run.depths, 1)
    base = _plan(compiler, run, one)
    found = _step(base)
    for option, depth in run.depths.items():
        if depth > 1:
            more = _plan(compiler, run, one | {option: 2})
            pairs = zip(found, _step(more), _step(base), strict=True)
            found = Step(*(value + (depth - 1) * (two - one) for value, two, one in pairs))
    return found, base.config.batch_size


def _step(made: plan.Plan) -> Step:
    return Step(made.seconds, made.step.flops, made.result.needed)


def _plan(compiler: compiling.Compiler, run: Run, depths: Mapping[str, int]) -> plan.Plan:
    """The plan of a step with so many blocks. Raises ValueError if it does not fit."""
    blocks = [f"{option}={depth}" for option, depth in depths.items()]
    unrolled = ["--config.model.unroll=2"] if depths else []  # also the blocks of a decoder
    config = configs.from_file(run.recipe, (*run.overrides, *blocks, *unrolled))
    facts = DataFacts(train_size=run.images, num_classes=run.classes)
    topology = topologies.parse(run.topology)
    found = plan.make(compiler, Job(config=config, facts=facts, topology=topology))
    if found.timeline is None:
        raise ValueError(f"needs {found.result.needed / 2**30:.1f} GiB per device")
    return found


if __name__ == "__main__":
    main()
