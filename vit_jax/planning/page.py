"""The page of plans: tables and charts of memory, time and scaling."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.page import charts, document
from vit_jax.page.document import Rows, Section
from vit_jax.planning import table
from vit_jax.planning.plan import Plan, held_bytes
from vit_jax.planning.scaling import Point

_LIMIT = "#e0245e"
_DEAREST = 12


def render(
    plans: Sequence[Plan],
    *,
    title: str,
    tables: Mapping[str, Rows],
    points: Sequence[Point] = (),
) -> str:
    """The page of plans. `tables` come first, by their titles; the first row is the head."""
    ready = [one for one in plans if one.timeline is not None]
    drawn = {"Memory of a device": _memory(plans)}
    if ready:
        drawn["Time of a step"] = _time(ready)
    if points:
        drawn["Chart of scaling"] = _scaling(points)
    return document.render(
        title=title,
        note=table.note(plans),
        sections=[Section(tables=tables, charts=drawn), *map(_section, plans)],
    )


def _section(plan: Plan) -> Section:
    tables: dict[str, Rows] = {}
    if plan.timeline is not None:
        tables = {
            "Collectives of a step": table.collectives(plan.timeline.collectives),
            "Dearest instructions": _dearest(plan),
        }
    return Section(
        name=f"{plan.topology.name}, {table.mesh_name(plan)}",
        lines=table.facts(plan),
        warnings=plan.warnings(),
        tables=tables,
    )


def _dearest(plan: Plan) -> list[tuple[str, ...]]:
    assert plan.timeline is not None
    rows: list[tuple[str, ...]] = [("operation", "ms", "times", "GFLOP", "GB")]
    for item in plan.timeline.dearest(_DEAREST):
        name = item.instruction.source or item.instruction.name
        numbers = (item.seconds * 1e3, item.flops / 1e9, item.bytes / 1e9)
        ms, flops, moved = (f"{number:.2f}" for number in numbers)
        rows.append((name[-90:], ms, str(item.times), flops, moved))
    return rows


def _labels(plans: Sequence[Plan]) -> list[str]:
    """Different names for the bars of plans, which may share a topology."""
    return [f"{one.topology.name} ({table.mesh_name(one)})" for one in plans]


def _memory(plans: Sequence[Plan]) -> Any:
    every = [held_bytes(one) for one in plans]
    parts = {part: [held[part] / table.GIB for held in every] for part in every[0]}
    figure = charts.bars(_labels(plans), parts, unit="GiB")
    for row, one in enumerate(plans):
        usable = one.topology.chip.memory / table.GIB
        line = {"color": _LIMIT, "width": 3}
        figure.add_shape(type="line", x0=usable, x1=usable, y0=row - 0.45, y1=row + 0.45, line=line)
    figure.add_annotation(
        text="red: memory that a program can use",
        xref="paper",
        yref="paper",
        x=1,
        y=1.02,
        showarrow=False,
        font={"color": _LIMIT},
        yanchor="bottom",
    )
    figure.update_layout(margin={"t": 35})
    return figure


def _time(plans: Sequence[Plan]) -> Any:
    every = [table.time_parts(one) for one in plans]
    parts = {part: [times[part] * 1e3 for times in every] for part in every[0]}
    return charts.bars(_labels(plans), parts, unit="ms per step")


def _scaling(points: Sequence[Point]) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for kind, colour in zip(("weak", "strong"), charts.COLOURS, strict=False):
        chosen = [point for point in points if point.kind == kind and point.efficiency]
        figure.add_scatter(
            x=[point.plan.topology.chips for point in chosen],
            y=[100 * (point.efficiency or 0.0) for point in chosen],
            text=[point.plan.topology.name for point in chosen],
            name=f"{kind} scaling",
            mode="lines+markers",
            line={"color": colour},
        )
    charts.plain(
        figure,
        xaxis={"type": "log", "title": "chips", "dtick": 0.30103},
        yaxis={"title": "images per chip and second, % of the first", "rangemode": "tozero"},
    )
    return figure
