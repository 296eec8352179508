"""A plan as text: one line for each topology, and what belongs to it below."""

from collections.abc import Iterable, Sequence

from vit_jax.planning.changes import Change
from vit_jax.planning.plan import Plan
from vit_jax.planning.schedule import Sum, Traffic

GIB = 2.0**30
_DEAREST = 5
NOTE = (
    "Memory, FLOPs, bytes and collectives are read from the compiled program. Times are predicted:"
    " within about 20% of published steps (docs/plan.md)."
)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines; the first column is aligned left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def overview(plans: Sequence[Plan]) -> list[str]:
    """One line for each topology."""
    head = ("topology", "chips", "mesh", "images/device", "HBM GiB", "of", "ms/step", "images/s")
    cost = ("cost",) if any(plan.price for plan in plans) else ()
    rows = [(*head, "per chip", "MFU", "days", "chip-hours", *cost)]
    rows += [(*_first(plan), *_second(plan, priced=bool(cost))) for plan in plans]
    return aligned(rows)


def _first(plan: Plan) -> tuple[str, ...]:
    mesh = mesh_name(plan)
    each = plan.config.batch_size / (plan.step.mesh["data"] * plan.step.mesh["fsdp"])
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


def details(
    plan: Plan, *, changes: Iterable[tuple[Change, float]] = (), decoded: float = 0.0
) -> list[str]:
    """What is behind the line of a topology."""
    lines = ["", f"{plan.topology.name}: {plan.topology.slices} x {plan.topology.sizes}"]
    lines += [f"  {line}" for line in _memory(plan)]
    if plan.timeline is not None:
        lines += [f"  {line}" for line in _time(plan)]
        lines += [f"  {line}" for line in aligned(_collectives(plan.timeline.collectives))]
        lines += ["  dearest instructions, ms per step:"]
        lines += [
            f"    {item.seconds * 1e3:7.2f}  {item.times:3d} times"
            f"  {item.instruction.source[-70:] or item.instruction.name}"
            for item in plan.timeline.items[:_DEAREST]
        ]
    lines += [
        f"  fits with {change}: {size / GIB:.2f} GiB ({change.price})" for change, size in changes
    ]
    return lines + [f"  warning: {text}" for text in plan.warnings(decoded=decoded)]


def _memory(plan: Plan) -> list[str]:
    held, needed, usable = plan.step.bytes, plan.result.needed, plan.topology.chip.memory
    parts = {
        "parameters": held.parameters,
        "optimizer": held.optimizer,
        "average": held.average,
        "frozen models": held.frozen,
        "batch": held.batch,
        "saved activations": held.activations,
        "gradients and rest": plan.other_bytes,
    }
    shown = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items() if size)
    spare = usable - needed
    verdict = f"{spare / GIB:.2f} free" if spare >= 0 else f"{-spare / GIB:.2f} too much"
    return [
        f"memory, GiB per device: {shown}",
        f"  peak {needed / GIB:.2f} of {usable / GIB:.2f}: {verdict}",
    ]


def _time(plan: Plan) -> list[str]:
    timeline = plan.timeline
    assert timeline is not None
    parts = {
        "matrix products": timeline.matmul,
        "other operations": timeline.other,
        "exposed communication": timeline.exposed,
        "exposed between slices": timeline.exposed_between,
        "waiting for copies": timeline.waiting,
    }
    shown = ", ".join(f"{name} {part * 1e3:.1f}" for name, part in parts.items() if part > 5e-5)
    host = plan.images_per_host
    return [
        f"step, ms: {shown}; no program takes less than {plan.bound * 1e3:.1f}",
        f"FLOPs of a step: model {plan.step.flops:.4g} (3 forward passes without the gradient of"
        f" the images), compiled {plan.flops_ratio:.3f} times that",
        f"HBM traffic {timeline.bytes / 1e9:.1f} GB a step and device",
        f"a host ({plan.topology.hosts} in all) decodes {host:,.0f} images per second and sends"
        f" {host * plan.step.image_bytes / 1e6:,.0f} MB per second to its chips",
        f"remat {plan.step.remat}, unroll {plan.step.unroll}; compiled in"
        f" {plan.result.seconds:.0f} s; the run has {plan.step.steps:,} steps",
    ]


def _collectives(found: dict[Traffic, Sum]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("collective", "axes", "devices", "link", "beside the core", "count", "MB", "ms")
    ]
    for traffic, total in found.items():
        early = "yes" if traffic.early else "no"
        first = (traffic.kind, traffic.axes, str(traffic.devices), traffic.link, early)
        numbers = (f"{total.count:,}", f"{total.bytes / 1e6:.1f}", f"{total.seconds * 1e3:.2f}")
        rows.append((*first, *numbers))
    return rows if len(rows) > 1 else [("no collectives", *[""] * 7)]
