"""The charts of a report: metrics over the steps of one or more runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.analysis.bands import Band, band
from vit_jax.page.charts import COLOURS, literal, plain
from vit_jax.report import words
from vit_jax.report.run import COUNTS, EVAL, Run

MOST_POINTS = 600  # of a curve; more are averaged in groups
MOST_CURVES = 10  # in a chart of one run
SMOOTHED = 40  # points from which on a curve is also drawn smoothed
_HEIGHT = 300  # in pixels, without a legend
_PERCENT = ".2~%"  # as many decimals as the ticks need, up to 2: fewer would repeat labels

# What the lines of training steps have besides the loss and what an objective measures.
_STEPS = {
    "learning_rate": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "param_norm": "Norm of the parameters",
    "images_per_second": "Images per second",
    "data_wait": "Share of the time waiting for data",
}
_EXACT = ("learning_rate", "param_norm")  # not noisy
_LEFT_OUT = ("loss_last", "bad_images")


def of_run(run: Run) -> dict[str, Any]:
    """The charts of one run by title: losses, evaluations, then the rest."""
    losses = [name for name in run.names if name in ("loss", f"{EVAL}loss", f"{EVAL}ema_loss")]
    charts = {"Loss": losses, **_evaluations(run, but=losses)}
    own = [
        name
        for name in run.names
        if not name.startswith(EVAL) and name not in (*losses, *_STEPS, *_LEFT_OUT)
    ]
    charts |= {f"Training: {words.metric(name)}": [name] for name in own}
    charts |= {title: [name] for name, title in _STEPS.items() if name in run.names}
    return {
        _titled(title, names): _chart(
            {_label(name): (name, [run]) for name in names[:MOST_CURVES]},
            dict(zip(map(_label, names), COLOURS * len(names), strict=False)),
        )
        for title, names in charts.items()
        if names
    }


def _titled(title: str, names: Sequence[str]) -> str:
    """The title of a chart of one run, which says how many of its metrics have no curve."""
    left_out = len(names) - MOST_CURVES
    return f"{title} ({left_out} more in the tables)" if left_out > 0 else title


def of_groups(groups: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """A chart for each metric that matters, with a band for each group of runs that has it."""
    runs = [run for members in groups.values() for run in members]
    main = dict.fromkeys(name for run in runs for name in run.main)
    names = ["loss", *(name for name in main if name != f"{EVAL}loss"), f"{EVAL}loss"]
    charts, colours = {}, dict(zip(groups, COLOURS * len(groups), strict=False))
    for name in (*names, "images_per_second"):
        having = {
            label: (name, list(members))
            for label, members in groups.items()
            if all(run.points(name) for run in members)
        }
        if having:
            charts[_STEPS.get(name) or _label(name).capitalize()] = _chart(having, colours)
    return charts


def _evaluations(run: Run, *, but: Sequence[str]) -> dict[str, list[str]]:
    """The metrics of each evaluator by title: percentages together, others one by one."""
    charts: dict[str, list[str]] = {}
    for name in run.names:
        if not name.startswith(EVAL) or name in but or name.rpartition("/")[2] in _counts():
            continue
        evaluator = name.removeprefix(EVAL).rpartition("/")[0] or "Held-out images"
        key = "accuracy" if words.is_share(name) else words.metric(name.replace("ema_", ""))
        charts.setdefault(f"{evaluator}: {key.rpartition(': ')[2]}", []).append(name)
    for names in charts.values():  # details, such as the accuracy at each severity, come last
        names.sort(key=lambda name: name.count("_"))
    return charts


def _counts() -> set[str]:
    return {*COUNTS, *(EVAL + name for name in COUNTS)}


def _label(name: str) -> str:
    if name == "loss":
        return "training loss"
    return f"held-out {words.metric(name)}" if name.startswith(EVAL) else words.metric(name)


def _chart(curves: Mapping[str, tuple[str, Sequence[Run]]], colours: Mapping[str, str]) -> Any:
    """A chart of curves by label: a metric of one run, or of runs that repeat each other."""
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for label, (name, runs) in curves.items():
        found = band([run.lines for run in runs], name)
        _add(figure, found, label=label, colour=colours[label], smooth=name not in _EXACT)
    names = {name for name, _ in curves.values()}
    axis: dict[str, Any] = {}
    if all(map(words.is_share, names)):
        axis = {"tickformat": _PERCENT}
    elif names == {"data_wait"}:
        axis = {"tickformat": _PERCENT, "rangemode": "tozero"}
    elif names == {"images_per_second"}:
        axis = {"rangemode": "tozero"}
    elif "grad_norm" in names:
        axis = {"type": "log"}
    plain(figure, hovermode="x unified", xaxis={"title": "step"}, yaxis=axis)
    legend = 20 * len(curves) + 20 if len(curves) > 1 else 0
    margin = {"l": 60, "b": 55 + legend}
    figure.update_layout(height=_HEIGHT + legend, margin=margin, showlegend=legend > 0)
    # Plotly warns in the console if margins that depend on numbers change the numbers.
    figure.update_xaxes(automargin=False).update_yaxes(automargin=False)
    return figure


def _add(figure: Any, found: Band, *, label: str, colour: str, smooth: bool) -> None:
    """Adds a curve and its band; if it has many points and `smooth`, also their running mean."""
    if not len(found.steps):
        return
    steps, mean, low, high = (_averaged(values) for values in found)
    own = {"x": _listed(steps), "legendgroup": label}
    unnamed = {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    line: dict[str, Any] = {"color": colour, "width": 1.5}
    if (high > low).any():
        within = {"fill": "tonexty", "fillcolor": f"rgba{(*_rgb(colour), 0.2)}"}
        figure.add_scatter(y=_listed(low), line={"width": 0}, **own, **unnamed)
        figure.add_scatter(y=_listed(high), line={"width": 0}, **within, **own, **unnamed)
    window = len(mean) // SMOOTHED if smooth else 1
    if window > 1:
        figure.add_scatter(y=_listed(mean), line=line, opacity=0.3, **own, **unnamed)
        mean = _smooth(mean, window)
    mode = "lines+markers" if len(mean) < SMOOTHED else "lines"
    figure.add_scatter(y=_listed(mean), mode=mode, line=line, name=literal(label), **own)


def _listed(values: np.ndarray) -> list[float]:
    """Values without the digits that come from rounding, which would make the page larger."""
    return [float(f"{value:.6g}") for value in values]


def _averaged(values: np.ndarray) -> np.ndarray:
    """At most `MOST_POINTS` values (N,): means of neighbours."""
    each = -(-len(values) // MOST_POINTS)
    starts = np.arange(0, len(values), each)
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(np.asarray(values, np.float64), starts) / counts


def _smooth(values: np.ndarray, window: int) -> np.ndarray:
    """The mean of `window` neighbours around each value; of fewer at the ends."""
    kernel = np.ones(window)
    counts = np.convolve(np.ones(len(values)), kernel, "same")
    return np.convolve(values, kernel, "same") / counts


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
