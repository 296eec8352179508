"""Self-contained HTML pages: tables and charts, readable without a network."""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.planning import table
from vit_jax.planning.plan import Plan, held_bytes
from vit_jax.planning.scaling import Point

INSTALL = "pip install vit_jax[report]"
_COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2", "#9c6b4e", "#97bbf5", "#9498a0")
_TEXT, _GRID, _LIMIT = "#808080", "rgba(128, 128, 128, 0.3)", "#e0245e"
_SHOWN = {"responsive": True, "displayModeBar": False}
_DEAREST = 12


def check_installed() -> None:
    """Raises ValueError unless the libraries that draw the page are installed."""
    if not all(map(importlib.util.find_spec, ("jinja2", "plotly"))):
        raise ValueError(f"--html needs Plotly and Jinja2: {INSTALL}")


def render(
    plans: Sequence[Plan],
    *,
    title: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    points: Sequence[Point] = (),
) -> str:
    """The page of plans. `tables` come first, by their titles; the first row is the head."""
    ready = [one for one in plans if one.timeline is not None]
    charts = {"Memory of a device": _memory(plans)}
    if ready:
        charts["Time of a step"] = _time(ready)
    if points:
        charts["Chart of scaling"] = _scaling(points)
    return document(
        title=title,
        note=table.note(plans),
        tables=tables,
        charts=charts,
        sections=[_section(one) for one in plans],
    )


def document(
    *,
    title: str,
    note: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    charts: Mapping[str, Any],
    sections: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The text of a page: tables and Plotly figures by their titles, then sections.

    A section has a `name`, and `lines`, `warnings` and `tables` (title and rows) as lists.
    """
    import jinja2
    from plotly import offline

    folder = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    template = jinja2.Environment(loader=folder, autoescape=True).get_template("page.html")
    return template.render(
        title=title,
        note=note,
        plotly=offline.get_plotlyjs(),
        tables=[{"title": name, "rows": rows} for name, rows in tables.items()],
        charts=[
            {
                "title": name,
                "html": figure.to_html(full_html=False, include_plotlyjs=False, config=_SHOWN),
            }
            for name, figure in charts.items()
        ],
        sections=sections,
    )


def _section(plan: Plan) -> dict[str, Any]:
    tables = []
    if plan.timeline is not None:
        rows = table.collectives(plan.timeline.collectives)
        tables = [
            {"title": "Collectives of a step", "rows": rows},
            {"title": "Dearest instructions", "rows": _dearest(plan)},
        ]
    return {
        "name": f"{plan.topology.name}, {table.mesh_name(plan)}",
        "lines": table.facts(plan),
        "warnings": plan.warnings(),
        "tables": tables,
    }


def _dearest(plan: Plan) -> list[tuple[str, ...]]:
    assert plan.timeline is not None
    rows: list[tuple[str, ...]] = [("operation", "ms", "times", "GFLOP", "GB")]
    for item in plan.timeline.items[:_DEAREST]:
        name = item.instruction.source or item.instruction.name
        numbers = (item.seconds * 1e3, item.flops / 1e9, item.bytes / 1e9)
        ms, flops, moved = (f"{number:.2f}" for number in numbers)
        rows.append((name[-90:], ms, str(item.times), flops, moved))
    return rows


def plain(figure: Any, *, height: int = 450, **layout: Any) -> None:
    """Gives a figure the looks of the pages, in colours that can be read on white and on black.

    The legend is below the chart, with room for it in the margin, however narrow the page is.
    """
    below = {"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom"}
    grid = {"gridcolor": _GRID, "zerolinecolor": _GRID, "automargin": True}
    clear = "rgba(0, 0, 0, 0)"
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 110},
        legend={**below, "traceorder": "normal"},
        paper_bgcolor=clear,
        plot_bgcolor=clear,
        font={"color": _TEXT},
        **layout,
    )
    figure.update_xaxes(grid).update_yaxes(grid)


def _bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], *, unit: str) -> Any:
    """Stacked bars, one for each name."""
    from plotly import graph_objects

    rows = list(range(len(names)))  # not the names, which may be equal
    shown = {part: values for part, values in parts.items() if any(values)}
    bars = [
        graph_objects.Bar(y=rows, x=values, name=part, orientation="h", marker_color=colour)
        for (part, values), colour in zip(shown.items(), _COLOURS, strict=False)
    ]
    figure = graph_objects.Figure(bars)
    plain(
        figure,
        barmode="stack",
        height=190 + 45 * len(names),
        xaxis_title=unit,
        yaxis={"autorange": "reversed", "tickvals": rows, "ticktext": list(names)},
    )
    return figure


def _labels(plans: Sequence[Plan]) -> list[str]:
    """Different names for the bars of plans, which may share a topology."""
    return [f"{one.topology.name} ({table.mesh_name(one)})" for one in plans]


def _memory(plans: Sequence[Plan]) -> Any:
    every = [held_bytes(one) for one in plans]
    parts = {part: [held[part] / table.GIB for held in every] for part in every[0]}
    figure = _bars(_labels(plans), parts, unit="GiB")
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
    return _bars(_labels(plans), parts, unit="ms per step")


def _scaling(points: Sequence[Point]) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for kind, colour in zip(("weak", "strong"), _COLOURS, strict=False):
        chosen = [point for point in points if point.kind == kind and point.efficiency]
        figure.add_scatter(
            x=[point.plan.topology.chips for point in chosen],
            y=[100 * (point.efficiency or 0.0) for point in chosen],
            text=[point.plan.topology.name for point in chosen],
            name=f"{kind} scaling",
            mode="lines+markers",
            line={"color": colour},
        )
    plain(
        figure,
        xaxis={"type": "log", "title": "chips", "dtick": 0.30103},
        yaxis={"title": "images per chip and second, % of the first", "rangemode": "tozero"},
    )
    return figure
