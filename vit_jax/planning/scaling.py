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

_CHIPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 6144)
_TIMES = (2, 4, 8, 16, 32, 64, 128, 256)


class Point(NamedTuple):
    """A plan of the table, and its share of the images per chip and second of the first plan.

    The share is None for a step that does not fit.
    """

    kind: Literal["weak", "strong"]
    plan: Plan
    efficiency: float | None


def sizes(first: Topology, *, most: int) -> list[Topology]:
    """From `first` up to `most` chips: larger slices, then several of the largest.

    If `first` has several slices, the others have more of the same slices.
    """
    chip, found = first.chip, [first]
    counts = sorted({*_CHIPS, *(first.chips * times for times in _TIMES)})
    for chips in counts if first.slices == 1 else ():
        if first.chips < chips <= most and chips % first.chips == 0:
            found += _slice(f"{chip.name}-{chips * chip.counted}")
    largest = found[-1]
    return found + [
        dataclasses.replace(largest, slices=largest.slices * times)
        for times in _TIMES
        if largest.chips * times <= most and largest.slices * times <= topologies.MOST_SLICES
    ]


def _slice(name: str) -> Iterator[Topology]:
    try:
        yield topologies.parse(name)
    except ValueError:  # Cloud has no slice of this size
        return


def table(compiler: Compiler, job: Job, *, most: int, price: float = 0.0) -> list[Point]:
    """The points of both kinds, from the topology of the job up to `most` chips.

    Strong scaling ends where a device would have less than one image, and leaves out sizes that the
    batch cannot be divided over. Errors: `Compiler.one`.
    """
    wanted = sizes(job.topology, most=most)
    weak, strong = (list(_jobs(job, kind, wanted)) for kind in ("weak", "strong"))
    plans = compiler.each(lambda one: plan_lib.make(compiler, one, price=price), weak + strong)
    return [*_points("weak", plans[: len(weak)]), *_points("strong", plans[len(weak) :])]


def _jobs(job: Job, kind: str, wanted: Sequence[Topology]) -> Iterator[Job]:
    for topology in wanted:
        times, rest = divmod(topology.chips, job.topology.chips)
        if rest:
            continue
        batch = job.config.batch_size * (times if kind == "weak" else 1)
        parts = topology.devices // job.config.mesh.tensor * job.config.optimizer.accumulate
        if batch < parts:
            return
        if batch % parts:
            continue
        yield dataclasses.replace(with_batch(job, batch), topology=topology)


def _points(kind: str, plans: Sequence[Plan]) -> Iterator[Point]:
    fitting = (plan.images_per_second / plan.topology.chips for plan in plans if plan.timeline)
    base = next(fitting, 0.0)
    for one in plans:
        each = one.images_per_second / one.topology.chips if one.timeline else 0.0
        share = each / base if one.timeline else None
        yield Point("weak" if kind == "weak" else "strong", one, share)
