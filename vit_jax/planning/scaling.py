"""How a run scales over numbers of chips.

Weak scaling: as many images per chip on all sizes. Strong scaling: the same batch on all sizes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from vit_jax.planning import plan as plan_lib
from vit_jax.planning import topologies
from vit_jax.planning.changes import with_batch
from vit_jax.planning.compiling import Compiler
from vit_jax.planning.job import Job
from vit_jax.planning.plan import Plan
from vit_jax.planning.topologies import Topology

_CHIPS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 6144)
_SLICES = 4


class Point(NamedTuple):
    """A plan of the table, and its share of the images per chip and second of the first plan."""

    kind: Literal["weak", "strong"]
    plan: Plan
    efficiency: float


def sizes(first: Topology, *, most: int) -> list[Topology]:
    """From the size of `first` up to `most` chips: single slices, then several of the largest."""
    chip = first.chip
    found: list[Topology] = []
    for chips in _CHIPS:
        if first.chips <= chips <= most:
            found += _slice(f"{chip.name}-{chips * chip.counted}")
    if not found:
        return [first]
    largest = found[-1]
    several = range(2, _SLICES + 1, 2)
    return found + [
        dataclasses.replace(largest, slices=n) for n in several if largest.chips * n <= most
    ]


def _slice(name: str) -> Iterator[Topology]:
    try:
        yield topologies.parse(name)
    except ValueError:  # Cloud has no slice of this size
        return


def table(compiler: Compiler, job: Job, *, most: int, price: float = 0.0) -> list[Point]:
    """The points of both kinds, from the topology of the job up to `most` chips.

    Strong scaling ends where a device would have less than one image. Errors: `Compiler.one`.
    """
    points: list[Point] = []
    for kind in ("weak", "strong"):
        jobs = _jobs(job, kind, sizes(job.topology, most=most))
        plans = compiler.each(lambda one: plan_lib.make(compiler, one, price=price), jobs)
        points += _points(kind, [one for one in plans if one.timeline is not None])
    return points


def _jobs(job: Job, kind: str, wanted: Sequence[Topology]) -> Iterator[Job]:
    for topology in wanted:
        times, rest = divmod(topology.chips, job.topology.chips)
        if rest:
            continue
        batch = job.config.batch_size * (times if kind == "weak" else 1)
        if batch < topology.devices:
            return
        yield dataclasses.replace(with_batch(job, batch), topology=topology)


def _points(kind: str, plans: Sequence[Plan]) -> Iterator[Point]:
    for one in plans:
        each = one.images_per_second / one.topology.chips
        base = plans[0].images_per_second / plans[0].topology.chips
        yield Point("weak" if kind == "weak" else "strong", one, each / base)
