"""The plan of a run on a topology: memory, time and cost, from what the compiler made of its step.

Definitions. Model FLOPs: `model_flops`. MFU: model FLOPs of a step / (seconds * devices * peak
bfloat16 FLOP/s of a device). Images per second: batch size / seconds. Bound: the time that no
program can beat, the larger of FLOPs / peak and bytes / bandwidth of the HBM.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.config import Config
from vit_jax.errors import RunFailed
from vit_jax.planning import advice, hlo, schedule
from vit_jax.planning.changes import changed, scanned
from vit_jax.planning.collectives import Network
from vit_jax.planning.compiling import Compiler, TookTooLong
from vit_jax.planning.job import Job, Result, Step
from vit_jax.planning.schedule import Timeline
from vit_jax.planning.topologies import Topology
from vit_jax.training import compute, progressive

DEAREST = 12  # instructions that a plan lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run on a topology. A step that does not fit has no timeline.

    With progressive resolution, it is about steps with images of the final size; only the hours and
    what follows from them are about all stages.
    """

    job: Job
    result: Result
    timeline: Timeline | None
    price: float = 0.0  # of a chip for an hour; 0: unknown
    earlier: tuple["Stage", ...] = ()  # stages with smaller images
    decoding: advice.Decoding | None = None  # of the hosts
    hurried: bool = False  # whether the run itself unrolls its blocks, which takes long to compile

    @property
    def config(self) -> Config:
        return self.job.config

    @property
    def topology(self) -> Topology:
        return self.job.topology

    @property
    def step(self) -> Step:
        assert self.result.step is not None, "a result without a step is an error"
        return self.result.step

    @property
    def seconds(self) -> float:
        """The predicted seconds of a step."""
        assert self.timeline is not None, "the step does not fit"
        return self.timeline.seconds

    @property
    def images_per_second(self) -> float:
        return self.config.batch_size / self.seconds

    @property
    def mfu(self) -> float:
        peak = self.topology.devices * self.topology.chip.peak
        return self.step.flops / (self.seconds * peak)

    @property
    def bound(self) -> float:
        """The seconds that a step takes at least."""
        assert self.timeline is not None, "the step does not fit"
        chip = self.topology.chip
        return max(self.timeline.flops / chip.peak, self.timeline.bytes / chip.bandwidth)

    @property
    def flops_ratio(self) -> float:
        """Compiled FLOPs over model FLOPs."""
        assert self.timeline is not None, "the step does not fit"
        return self.timeline.flops * self.topology.devices / self.step.flops

    @property
    def hours(self) -> float:
        """The hours of the run, without evaluations, checkpoints and start."""
        last = self.step.steps - sum(stage.steps for stage in self.earlier)
        steps = [(last, self.seconds), *((one.steps, one.plan.seconds) for one in self.earlier)]
        return sum(count * seconds for count, seconds in steps) / 3600

    @property
    def chip_hours(self) -> float:
        return self.hours * self.topology.chips

    @property
    def images_per_host(self) -> float:
        """The images that a host must decode per second; 0 if features are computed once."""
        if self.config.tune.caches:
            return 0.0
        return self.images_per_second / self.topology.hosts

    @property
    def decodable_per_host(self) -> float:
        """The images that a host can decode per second; 0: unknown."""
        return self.decoding.of_host(self.topology) if self.decoding else 0.0

    def warnings(self) -> list[str]:
        """Advice that may save money."""
        found = advice.of_step(self.step, self.topology, batch_size=self.config.batch_size)
        found += [advice.HURRIED] if self.hurried else []
        if self.timeline is None:
            return found
        found += advice.of_program(self.timeline, self.step, devices=self.topology.devices)
        return found + advice.of_input(self.topology, self.images_per_host, self.decoding)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """The steps of a run that have smaller images (config.progressive)."""

    steps: int
    plan: Plan


def held_bytes(plan: Plan) -> dict[str, float]:
    """The bytes of a device at the peak of a step, by what they are for; they add up to the peak.

    "rest" is what the other parts leave of the peak that the compiler states: temporary arrays.
    Activations and gradients are cut where they are more than the peak.
    """
    held = plan.step.bytes
    parts = {
        "parameters": held.parameters,
        "optimizer": held.optimizer,
        "average": held.average,
        "frozen models": held.frozen,
        "batch": held.batch,
    }
    for name, size in {
        "saved activations": held.activations,
        "gradients": held.gradients,
        "rest": plan.result.needed,
    }.items():
        parts[name] = max(0.0, min(size, plan.result.needed - sum(parts.values())))
    return parts


def make(compiler: Compiler, job: Job, *, price: float = 0.0) -> Plan:
    """Compiles a step, or takes it from the cache, and reads the program. Errors: `Compiler.one`.

    A step is probed first, because a step that does not fit a TPU is found in seconds. Blocks that
    are unrolled, but not because the config says so, are scanned if they take too long to compile,
    or are expected to.
    """
    probe, hurried = None, False
    if job.topology.chip.platform == "tpu":
        with contextlib.suppress(RunFailed):  # the compiler fails with so little memory
            probe = compiler.one(dataclasses.replace(job, probe=True))
    if probe is not None and not probe.fits:
        return Plan(job=job, result=probe, timeline=None, price=price)
    quicker = scanned(job)
    blocks = probe.step.unroll if probe is not None and probe.step is not None else 1
    if quicker != job and compute.compiling(blocks) > compiler.limit:
        job, hurried = quicker, True
    try:
        result = compiler.one(job)
    except TookTooLong:
        if job == quicker:
            raise
        job, hurried = quicker, True
        result = compiler.one(job)
    if not result.fits:
        return Plan(job=job, result=result, timeline=None, price=price, hurried=hurried)
    assert result.step is not None, "the program of a step was compiled"
    network = Network(job.topology.chip, result.step.mesh, result.step.slice_of)
    timeline = schedule.walk(hlo.parse(compiler.text(result)), network)
    return Plan(job=job, result=result, timeline=timeline, price=price, hurried=hurried)


def of_run(compiler: Compiler, job: Job, *, price: float = 0.0) -> Plan:
    """The plan of all stages of a run; each is compiled like a run with images of its size.

    The interpolation of the positions within a step is left out.
    """
    last = make(compiler, job, price=price)
    if last.timeline is None:
        return last
    config = job.config
    height, width = (*config.image_size, config.image_size[0])[:2]
    stages = progressive.stages(config, final=(height, width), total_steps=last.step.steps)

    def stage(part: tuple[int, int, progressive.Size]) -> Stage:
        begin, end, size = part
        smaller = changed(config, {"image_size": size, "progressive": ()})
        found = make(compiler, dataclasses.replace(job, config=smaller), price=price)
        return Stage(steps=end - begin, plan=found)

    parts = list(zip((0, *stages.ends), stages.ends, stages.sizes, strict=False))
    return dataclasses.replace(last, earlier=tuple(compiler.each(stage, parts)))


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values; bytes and seconds are per device and step."""
    step, topology = plan.step, plan.topology
    found: dict[str, Any] = {
        "topology": topology.name,
        "slice": topology.sizes,
        "slices": topology.slices,
        "chips": topology.chips,
        "devices": topology.devices,
        "hosts": topology.hosts,
        "mesh": step.mesh,
        "model": plan.config.model.name,
        "batch_size": plan.config.batch_size,
        "remat": step.remat,
        "unroll": step.unroll,
        "parameters": step.parameters,
        "steps": step.steps,
        "memory": _memory(plan),
        "model_flops": step.flops,
        "stages_before": [{"steps": one.steps, **to_json(one.plan)} for one in plan.earlier],
        "warnings": plan.warnings(),
    }
    if plan.timeline is not None:
        found |= _time(plan, plan.timeline)
    return found


def _memory(plan: Plan) -> dict[str, Any]:
    parts = {name.replace(" ", "_"): size for name, size in held_bytes(plan).items()}
    return {
        "fits": plan.result.fits,
        "peak": plan.result.needed,
        "usable": plan.topology.chip.memory,
        **parts,
    }


def _time(plan: Plan, timeline: Timeline) -> dict[str, Any]:
    cost: Mapping[str, float] = {"cost": plan.chip_hours * plan.price} if plan.price else {}
    return {
        "seconds": plan.seconds,
        "time": {
            "matmul": timeline.matmul,
            "other": timeline.other,
            "exposed_communication": timeline.exposed,
            "exposed_between_slices": timeline.exposed_between,
            "waiting_for_copies": timeline.waiting,
            "bound": plan.bound,
        },
        "images_per_second": plan.images_per_second,
        "mfu": plan.mfu,
        "compiled_flops": timeline.flops * plan.topology.devices,
        "flops_ratio": plan.flops_ratio,
        "traced_flops_ratio": plan.step.traced_flops / plan.step.flops,
        "hbm_bytes": timeline.bytes,
        "collectives": [
            {**traffic._asdict(), **dataclasses.asdict(total)}
            for traffic, total in timeline.collectives.items()
        ],
        "dearest": [
            {
                "seconds": item.seconds,
                "times": item.times,
                "flops": item.flops,
                "bytes": item.bytes,
                "instruction": item.instruction.name,
                "source": item.instruction.source,
            }
            for item in timeline.dearest(DEAREST)
        ],
        "run": {
            "hours": plan.hours,
            "days": plan.hours / 24,
            "chip_hours": plan.chip_hours,
            **cost,
        },
        "input": {
            "images_per_second_per_host": plan.images_per_host,
            "bytes_per_second_per_host": plan.images_per_host * plan.step.image_bytes,
            "cores_per_host": plan.topology.host_cores,
            "decodable_per_second_per_host": plan.decodable_per_host,
        },
        "compile_seconds": plan.result.seconds,
    }
