"""The looks of the charts on pages."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.text import printable

COLOURS = ("#4269d0", "#efb118", "#3ca951", "#ff725c", "#a463f2", "#9c6b4e", "#97bbf5", "#9498a0")
_TEXT, _GRID = "#808080", "rgba(128, 128, 128, 0.3)"


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


def bars(names: Sequence[str], parts: Mapping[str, Sequence[float]], *, unit: str) -> Any:
    """Stacked horizontal bars, one for each name."""
    from plotly import graph_objects

    rows = list(range(len(names)))  # not the names, which may be equal
    shown = {part: values for part, values in parts.items() if any(values)}
    drawn = [
        graph_objects.Bar(y=rows, x=values, name=part, orientation="h", marker_color=colour)
        for (part, values), colour in zip(shown.items(), COLOURS, strict=False)
    ]
    figure = graph_objects.Figure(drawn)
    ticks = list(map(literal, names))
    plain(
        figure,
        barmode="stack",
        height=190 + 45 * len(names),
        xaxis_title=unit,
        yaxis={"autorange": "reversed", "tickvals": rows, "ticktext": ticks},
    )
    return figure


def literal(text: str) -> str:
    """A text that Plotly shows as it is: Plotly obeys some tags, and $ begins mathematics."""
    return html.escape(printable(text), quote=False).replace("$", "&#36;")
