"""A picture of the curves of one or more runs."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit_jax.analysis.bands import Band, Lines, band
from vit_jax.text import printable

LOSSES = {"loss": "training loss", "eval_loss": "held-out loss"}
ACCURACIES = {"eval_top1": "top-1", "eval_ema_top1": "top-1 of the average"}
STYLES = ("-", "--", ":", "-.")  # of the metrics, if colours are those of runs


def curves(groups: Mapping[str, Sequence[Lines]]) -> Figure:
    """Loss and held-out accuracy over the steps.

    `groups` are runs by a label. Those of one group are drawn as their mean, and as a band from the
    smallest to the largest value.
    """
    everything = [lines for runs in groups.values() for lines in runs]
    classifies = any("eval_top1" in values for lines in everything for _, values in lines)
    figure = Figure(figsize=(8, 3 + 0.2 * max(len(groups) - 2, 0)), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names in (
        (left, LOSSES),
        (right, ACCURACIES if classifies else _measured(everything)),
    ):
        for number, (group, runs) in enumerate(groups.items()):
            for style, (name, label) in zip(STYLES, names.items(), strict=False):
                several = len(groups) > 1
                colour = f"C{number % 10}" if several else None
                shown = f"{group}: {label}" if group else label
                _draw(axes, band(runs, name), label=shown, color=colour,
                      linestyle=style if several else "-")  # fmt: skip
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend(fontsize=8 if len(groups) == 1 else 6)
    left.set_ylabel("loss")
    right.set_ylabel("held-out accuracy" if classifies else "held-out measure")
    if classifies:
        right.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.1f}%")
    return figure


def _draw(axes: Axes, values: Band, *, label: str, color: str | None, linestyle: str) -> None:
    """Draws a band with its mean, or a line if there is one run; nothing if there are no points."""
    if not len(values.steps):
        return
    (line,) = axes.plot(
        values.steps,
        values.mean,
        color=color,
        linestyle=linestyle,
        marker="." * (len(values.steps) < 20),
    )
    # A label may hold dollar signs, which Matplotlib would read as mathematics.
    line.set_label(printable(label).replace("$", r"\$"))
    if (values.high > values.low).any():
        axes.fill_between(
            values.steps, values.low, values.high, color=line.get_color(), alpha=0.2, linewidth=0
        )


def _measured(runs: Sequence[Lines]) -> dict[str, str]:
    """The first metric of the evaluations that is not the loss, with its name."""
    names = (name for lines in runs for _, values in lines for name in values)
    own = (name for name in names if name.startswith("eval_") and "/" not in name)
    first = next((name for name in own if name not in ("eval_loss", "eval_count")), None)
    return {first: first.removeprefix("eval_")} if first else {}
