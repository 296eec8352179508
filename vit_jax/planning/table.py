"""A plan as text: one line for each topology, and what belongs to it below."""

from collections.abc import Iterable, Mapping, Sequence

from vit_jax.planning.changes import Change
from vit_jax.planning.job import Result, versions
from vit_jax.planning.plan import Plan, held_bytes
from vit_jax.planning.scaling import Point
from vit_jax.planning.schedule import Sum, Traffic
from vit_jax.planning.search import Candidate
from vit_jax.planning.topologies import Topology

GIB = 2.0**30
_DEAREST = 5
_READ = "Memory, FLOPs, bytes and collectives are read from the compiled program."
_TIMES = {  # by platform
    "tpu": "Times on TPUs are predicted: within 20% for 12 of 15 published steps (docs/plan.md).",
    "gpu": (
        "Times on GPUs are the least that the chip allows: each operation takes the time for its"
        " FLOPs at the peak, or for its bytes. A measured step took 1.4 times as long"
        " (docs/plan.md)."
    ),
}


def note(plans: Sequence[Plan]) -> str:
    """What is read, what is modelled, and by which compilers."""
    platforms = sorted({plan.topology.chip.platform for plan in plans})
    used = {name: version for one in platforms for name, version in versions(one).items()}
    sentences = [_READ, *(_TIMES[one] for one in platforms)]
    return " ".join(sentences) + f" Compiled by {', '.join(map(' '.join, used.items()))}."


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines; the first column is aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def overview(plans: Sequence[Plan]) -> list[tuple[str, ...]]:
    """A row for each topology, after a row of titles."""
    head = ("topology", "chips", "mesh", "images/device", "HBM GiB", "of", "ms/step", "images/s")
    cost = ("cost",) if any(plan.price for plan in plans) else ()
    rows: list[tuple[str, ...]] = [(*head, "per chip", "MFU", "days", "chip-hours", *cost)]
    rows += [(*_first(plan), *_second(plan, priced=bool(cost))) for plan in plans]
    return rows


def _first(plan: Plan) -> tuple[str, ...]:
    mesh = mesh_name(plan)
    each = plan.config.batch_size / plan.step.batch_parts
    sizes = (f"{plan.result.needed / GIB:.2f}", f"{plan.topology.chip.memory / GIB:.2f}")
    return (plan.topology.name, f"{plan.topology.chips:,}", mesh, f"{each:g}", *sizes)


def _second(plan: Plan, *, priced: bool) -> tuple[str, ...]:
    if plan.timeline is None:
        return ("does not fit", *[""] * (6 if priced else 5))
    cost = (f"{plan.chip_hours * plan.price:,.0f}",) if priced else ()
    return (
        f"{plan.seconds * 1e3:.1f}",
        f"{plan.images_per_second:,.0f}",
        f"{plan.images_per_second / plan.topology.chips:,.0f}",
        f"{plan.mfu:.1%}",
        f"{plan.hours / 24:.2f}",
        f"{plan.chip_hours:,.0f}",
        *cost,
    )


def mesh_name(plan: Plan) -> str:
    """The sizes of the mesh, such as data 16 x fsdp 16."""
    used = [f"{axis} {size}" for axis, size in plan.step.mesh.items() if size > 1]
    return " x ".join(used) or "1 device"


def details(plan: Plan, *, changes: Iterable[tuple[Change, float]] = ()) -> list[str]:
    """What is behind the line of a topology."""
    lines = ["", f"{plan.topology.name}: {plan.topology.slices} x {plan.topology.sizes}"]
    lines += [f"  {line}" for line in facts(plan)]
    if plan.timeline is not None:
        lines += [f"  {line}" for line in aligned(collectives(plan.timeline.collectives))]
        lines += ["  dearest instructions, ms per step:"]
        lines += [
            f"    {item.seconds * 1e3:7.2f}  {item.times:3d} times"
            f"  {item.instruction.source[-70:] or item.instruction.name}"
            for item in plan.timeline.dearest(_DEAREST)
        ]
    lines += [
        f"  fits with {change}: {size / GIB:.2f} GiB ({change.price})" for change, size in changes
    ]
    return lines + [f"  warning: {text}" for text in plan.warnings()]


def facts(plan: Plan) -> list[str]:
    """The memory and the time of a step, in sentences."""
    shown = ", ".join(f"{name} {size / GIB:.2f}" for name, size in held_bytes(plan).items() if size)
    needed, usable = plan.result.needed, plan.topology.chip.memory
    spare = usable - needed
    verdict = f"{spare / GIB:.2f} free" if spare >= 0 else f"{-spare / GIB:.2f} too much"
    lines = [
        f"memory, GiB per device: {shown}",
        f"peak {needed / GIB:.2f} of {usable / GIB:.2f} GiB: {verdict}",
    ]
    return lines if plan.timeline is None else lines + _time(plan)


def time_parts(plan: Plan) -> dict[str, float]:
    """The seconds of a step, by what the core does."""
    timeline = plan.timeline
    assert timeline is not None, "the step does not fit"
    return {
        "matrix products": timeline.matmul,
        "other operations": timeline.other,
        "exposed communication": timeline.exposed,
        "exposed between slices": timeline.exposed_between,
        "waiting for copies": timeline.waiting,
    }


def _input(plan: Plan) -> str:
    """What each host does for the steps."""
    if plan.config.tune.caches:
        return "the features of the training images are computed once before: that is not planned"
    host, can = plan.images_per_host, plan.decodable_per_host
    cores = f"; its cores can decode {can:,.0f}" if can else ""
    return (
        f"each of {plan.topology.hosts} hosts decodes {host:,.0f} images per second and sends"
        f" {host * plan.step.image_bytes / 1e6:,.0f} MB per second to its chips{cores}"
    )


def _time(plan: Plan) -> list[str]:
    assert plan.timeline is not None, "the step does not fit"
    parts = [f"{name} {part * 1e3:.1f}" for name, part in time_parts(plan).items() if part > 5e-5]
    return [
        *_stages(plan),
        f"step, ms: {', '.join(parts)}; no program takes less than {plan.bound * 1e3:.1f}",
        f"FLOPs of a step: model {plan.step.flops:.4g} (3 forward passes without the gradient of"
        f" the images), compiled {plan.flops_ratio:.3f} times that",
        f"HBM traffic {plan.timeline.bytes / 1e9:.1f} GB per step and device",
        _input(plan),
        f"remat {plan.step.remat}, unroll {plan.step.unroll}; compiled in"
        f" {plan.result.seconds:.0f} s; the run has {plan.step.steps:,} steps",
    ]


def _stages(plan: Plan) -> list[str]:
    """Lines about the stages of progressive resolution, which come before the final size."""
    lines = [
        f"{one.steps:,} of {plan.step.steps:,} steps have images of"
        f" {'x'.join(map(str, one.plan.config.image_size))}: {one.plan.seconds * 1e3:.1f} ms,"
        f" MFU {one.plan.mfu:.1%}, peak {one.plan.result.needed / GIB:.2f} GiB"
        for one in plan.earlier
    ]
    return [*lines, "the other steps, and all figures except the hours:"] if lines else []


def collectives(found: Mapping[Traffic, Sum]) -> list[tuple[str, ...]]:
    """A row for each kind, after a row of titles."""
    rows: list[tuple[str, ...]] = [
        ("collective", "axes", "devices", "link", "beside the core", "count", "MB", "ms")
    ]
    for traffic, total in found.items():
        early = "yes" if traffic.early else "no"
        first = (traffic.kind, traffic.axes, str(traffic.devices), traffic.link, early)
        numbers = (f"{total.count:,}", f"{total.bytes / 1e6:.1f}", f"{total.seconds * 1e3:.2f}")
        rows.append((*first, *numbers))
    return rows if len(rows) > 1 else [("no collectives", *[""] * 7)]


def candidates(found: Sequence[tuple[Candidate, Plan]], *, own: Plan) -> list[tuple[str, ...]]:
    """A row for each compiled candidate and for the config itself, after a row of titles."""
    rows: list[tuple[str, ...]] = [("fields", "HBM GiB", "ms/step", "images/s", "MFU")]
    shown = [(str(candidate), plan) for candidate, plan in found]
    shown += [("(as in the config)", own)] if own.timeline is not None else []
    for fields, plan in sorted(shown, key=lambda row: row[1].seconds):
        memory = f"{plan.result.needed / GIB:.2f}"
        speed = (f"{plan.seconds * 1e3:.1f}", f"{plan.images_per_second:,.0f}", f"{plan.mfu:.1%}")
        rows.append((fields, memory, *speed))
    return rows


def batches(found: Sequence[tuple[str, int, Result]], topology: Topology) -> list[tuple[str, ...]]:
    """A row for each kind of remat, after a row of titles."""
    rows: list[tuple[str, ...]] = [("remat", "largest batch", "per device", "HBM GiB", "of")]
    usable = f"{topology.chip.memory / GIB:.2f}"
    for remat, batch, result in found:
        assert result.step is not None, "a result without a step is an error"
        each = f"{batch / result.step.batch_parts:g}"
        rows.append((remat, f"{batch:,}", each, f"{result.needed / GIB:.2f}", usable))
    return rows


def scaling(points: Sequence[Point]) -> list[tuple[str, ...]]:
    """A row for each size, after a row of titles."""
    head = ("topology", "kind", "chips", "batch", "ms/step", "images/s", "MFU", "efficiency")
    rows: list[tuple[str, ...]] = [head]
    for kind, plan, efficiency in points:
        topology = plan.topology
        sizes = (kind, f"{topology.chips:,}", f"{plan.config.batch_size:,}")
        if efficiency is None:
            rows.append((topology.name, *sizes, "does not fit", "", "", ""))
            continue
        speed = (f"{plan.seconds * 1e3:.1f}", f"{plan.images_per_second:,.0f}", f"{plan.mfu:.1%}")
        rows.append((topology.name, *sizes, *speed, f"{efficiency:.1%}"))
    return rows
