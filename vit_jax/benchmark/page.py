"""The page of a benchmark: its tables and a chart of every measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.benchmark.report import Report
from vit_jax.benchmark.samples import Quantity
from vit_jax.page import document
from vit_jax.page.charts import plain
from vit_jax.page.document import Rows, Section
from vit_jax.parallel import machine


def render(report: Report, *, tables: Mapping[str, Rows], compared: Sequence[str] = ()) -> str:
    """The text of the page. `compared` are lines on the comparison, if there is one."""
    repeated = {n: one for n, one in report.measured.items() if len(one.values) > 1}
    charts = {"Scaling": _scaling(report)} if "points" in report.results else {}
    charts |= {
        f"{name.replace('_', ' ')}, every measurement": _points(one)
        for name, one in repeated.items()
    }
    return document.render(
        title=f"Benchmark {report.benchmark} of {report.recipe}",
        note=f"{report.date}; {machine.described(report.machine)}; config {report.digest}.",
        sections=[
            Section(tables=tables, charts=charts),
            Section(name="Notes", lines=[*report.notes, *compared]),
        ],
    )


def _scaling(report: Report) -> Any:
    """The efficiency over the number of devices."""
    from plotly import graph_objects

    points, figure = report.results["points"], graph_objects.Figure()
    figure.add_scatter(
        x=[point["devices"] for point in points],
        y=[100 * point["efficiency"] for point in points],
        mode="lines+markers",
    )
    title = "images per device and second, % of the first"
    plain(
        figure,
        xaxis={"type": "log", "title": "devices", "dtick": 0.30103},
        yaxis={"title": title, "rangemode": "tozero"},
    )
    return figure


def _points(one: Quantity) -> Any:
    """The measurements in their order; each round has a colour, a line is the median."""
    from plotly import graph_objects

    scale, unit = (1e3, "ms") if one.unit == "s" else (2.0**-20, "MiB")
    figure, first = graph_objects.Figure(), 0
    for number, part in enumerate(one.rounds):
        figure.add_scatter(
            x=list(range(first, first + len(part))),
            y=[value * scale for value in part],
            mode="markers",
            name=f"round {number + 1}",
            showlegend=len(part) > 1,
        )
        first += len(part)
    figure.add_hline(y=one.median * scale, line_dash="dot")
    plain(
        figure,
        height=350,
        xaxis={"title": "measurement", "tickformat": "d"},
        yaxis={"title": unit, "rangemode": "tozero"},
    )
    figure.update_layout(margin={"t": 35})  # for the buttons
    return figure
