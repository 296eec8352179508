"""The largest batch that fits, and the fastest mesh and remat for a batch.

Blocks are scanned: unrolled ones take several times as long to compile. A probe of the memory takes
seconds, a compilation up to minutes. So all candidates are probed, and only the few that a rough
estimate puts first are compiled.
"""

import contextlib
import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vit_jax.errors import RunFailed
from vit_jax.models.option_groups import Compute
from vit_jax.planning import plan as plan_lib
from vit_jax.planning.changes import changed, with_batch
from vit_jax.planning.compiling import Compiler
from vit_jax.planning.job import Job, Result, Step
from vit_jax.planning.plan import Plan

COMPILED = 3  # candidates that are compiled
_KINDS = typing.get_args(typing.get_type_hints(Compute)["remat"])
REMATS: tuple[str, ...] = tuple(kind for kind in _KINDS if kind != "auto")
_REACHED = 0.45  # share of the peak in the estimate
_TRIES = 5  # probes for the largest batch, after the first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """Fields of a config, and what the probe found with them."""

    fields: Mapping[str, Any]
    job: Job
    result: Result
    estimate: float  # rough seconds of a step, for the order only

    def __str__(self) -> str:
        return " ".join(f"--config.{path}={value}" for path, value in self.fields.items())


def fastest(
    compiler: Compiler, job: Job, *, price: float = 0.0
) -> tuple[list[tuple[Candidate, Plan]], list[Candidate]]:
    """The compiled candidates, the fastest first, and all candidates that were probed.

    Candidates with the step of the config itself are not among the compiled ones.
    """
    own = None
    with contextlib.suppress(RunFailed):  # the compiler fails to probe it
        own = compiler.one(dataclasses.replace(job, probe=True)).step
    probed = [one for one in _probe(compiler, job, list(_candidates(job))) if one is not None]
    others = (one for one in probed if one.result.fits and one.result.step != own)
    fitting = sorted(others, key=lambda one: one.estimate)

    def compiled(one: Candidate) -> tuple[Candidate, Plan] | None:
        try:
            return one, plan_lib.make(compiler, one.job, price=price)
        except RunFailed:  # it takes too long to compile
            return None

    plans = [found for found in compiler.each(compiled, fitting[:COMPILED]) if found is not None]
    ready = [pair for pair in plans if pair[1].timeline is not None]
    return sorted(ready, key=lambda pair: pair[1].seconds), probed


def _candidates(job: Job) -> Iterator[dict[str, Any]]:
    devices, slices = job.topology.devices, job.topology.slices
    inner = devices // slices
    root = 2 ** (int(math.log2(inner)) // 2)
    for fsdp in sorted({1, root, inner}):
        for remat in REMATS:
            fields = {"mesh.fsdp": fsdp, "model.remat": remat, "model.unroll": 1}
            yield fields if job.config.mesh.data == -1 else fields | {"mesh.data": -1}


def _probe(
    compiler: Compiler, job: Job, candidates: Sequence[Mapping[str, Any]]
) -> list[Candidate | None]:
    """The candidates that the model and the topology allow; None for the others."""

    def probe(fields: Mapping[str, Any]) -> Candidate | None:
        try:
            config = changed(job.config, fields)
            wanted = dataclasses.replace(job, config=config)
            result = compiler.one(dataclasses.replace(wanted, probe=True))
        except (ValueError, RunFailed):
            return None  # no such field, the batch does not divide, or the compiler fails
        assert result.step is not None, "the probe gave the facts of the step"
        estimate = _estimate(result.step, wanted)
        return Candidate(fields=fields, job=wanted, result=result, estimate=estimate)

    return compiler.each(probe, candidates)


def _estimate(step: Step, job: Job) -> float:
    """Rough seconds of a step: FLOPs at a usual speed, saved activations, and rings."""
    topology, mesh = job.topology, step.mesh
    compute = step.traced_flops / (topology.devices * topology.chip.peak * _REACHED)
    saved = 2 * step.bytes.activations / topology.chip.bandwidth  # written and read
    ring, half = topology.chip.ring, 2.0 * step.parameters / mesh["tensor"]  # in bfloat16
    gathers = 3 * half * (mesh["fsdp"] > 1)
    sums = 2 * half / mesh["fsdp"] * (mesh["data"] > 1)
    return compute + saved + (gathers / 2 + sums) / ring  # gathers partly run beside the core


def largest(compiler: Compiler, job: Job) -> list[tuple[str, int, Result]]:
    """For each kind of remat the largest batch that fits the mesh of the config, and its probe."""
    found = []
    for remat in REMATS:
        try:
            config = changed(job.config, {"model.remat": remat})
            best = _largest(compiler, dataclasses.replace(job, config=config, probe=True))
        except (ValueError, RunFailed):  # the model has no remat, or the compiler fails
            continue
        if best:
            found.append((remat, *best))
    return found


def _largest(compiler: Compiler, job: Job) -> tuple[int, Result] | None:
    """The memory grows almost linearly with the batch, so two probes predict where it is full.

    A step that does not fit is recomputed in part by the compiler, and may need less memory than a
    smaller one. Then the next probe is halfway between a batch that fits and one that does not.
    """
    first = compiler.one(job)
    assert first.step is not None, "the probe gave the facts of the step"
    unit = first.step.batch_parts * job.config.optimizer.accumulate
    low = max(1, job.config.batch_size // unit)
    last = (low, first)
    fits = (low, first) if first.fits else None
    too_large, guess = math.inf, 2 * low
    for _ in range(_TRIES):
        result = compiler.one(with_batch(job, guess * unit))
        slope = (result.needed - last[1].needed) / (guess - last[0])
        last = (guess, result)
        if result.fits:
            fits = last
        else:
            too_large = min(too_large, guess)
        left = job.topology.chip.memory - result.needed
        guess += math.floor(left / max(slope, 1.0))
        if fits and not result.fits and guess <= fits[0]:
            guess = int(fits[0] + too_large) // 2
        guess = max(1, min(guess, int(min(too_large - 1, 1e6))))
        if guess == last[0] or (fits and guess <= fits[0]):
            break
    return (fits[0] * unit, fits[1]) if fits else None
