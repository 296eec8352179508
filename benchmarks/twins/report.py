"""What a comparison leaves: figures of every step, a row of the table, a chart."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib.figure
import numpy as np

from benchmarks.twins.lockstep import CHAOS, QUANTITIES, Trajectory, Verdict, judge

_DIGITS = 9  # of a figure in a file
_NAMES = {"loss": "loss", "grad_norm": "gradient norm", "params": "parameters"}
HEAD = (
    "| twin | what it trains | peer | steps | worst gap: loss, gradient norm, parameters"
    " | worst self-gap: the same | worst ratio: the same | verdict |\n"
    "|---|---|---|---|---|---|---|---|"
)


def write(path: pathlib.Path, found: Trajectory, facts: Mapping[str, Any]) -> None:
    figures = {**facts, "trajectory": _plain(dataclasses.asdict(found))}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")


def read(path: pathlib.Path) -> tuple[Trajectory, dict[str, Any]]:
    facts = json.loads(path.read_text())
    fields = facts.pop("trajectory")
    return Trajectory(**_arrays(fields)), facts


def row(name: str, found: Trajectory, facts: Mapping[str, Any]) -> str:
    """The twin's row in a Markdown table."""
    verdicts = {quantity: judge(found, quantity) for quantity in QUANTITIES}
    cells = [
        name,
        facts["about"],
        facts["versions"],
        ", ".join(sorted({str(v.steps) for v in verdicts.values()}, key=int, reverse=True)),
        *(
            ", ".join(f"{getattr(v, field):{form}}" for v in verdicts.values())
            for field, form in (("worst_gap", ".0e"), ("worst_self_gap", ".0e"))
        ),
        ", ".join(f"{v.worst_ratio:.1f}" for v in verdicts.values()),
        outcome(verdicts),
    ]
    return f"| {' | '.join(cells)} |"


def outcome(verdicts: Mapping[str, Verdict]) -> str:
    parted = [
        f"{_NAMES[quantity]} at step {verdict.first_over or 0}"
        for quantity, verdict in verdicts.items()
        if not verdict.holds
    ]
    return f"parts: {', '.join(parted)}" if parted else "holds"


def chart(path: pathlib.Path, twins: Mapping[str, Trajectory]) -> None:
    """The gap and the allowance of every twin and quantity, over the steps."""
    figure = matplotlib.figure.Figure(figsize=(10, 1.9 * len(twins)), layout="constrained")
    axes = figure.subplots(len(twins), len(QUANTITIES), sharex=True, squeeze=False)
    for line, (name, found) in zip(axes, twins.items(), strict=True):
        for ax, quantity in zip(line, QUANTITIES, strict=True):
            steps = np.arange(len(found.gaps[quantity]))
            for side, colour in (("ours", "tab:blue"), ("peer", "tab:green")):
                values = np.maximum.accumulate(found.self_gaps[side][quantity])
                ax.plot(steps, _positive(values), color=colour, label=f"self-gap, {side}")
            gap = np.maximum.accumulate(found.gaps[quantity])
            ax.plot(steps, _positive(gap), color="tab:red", label="gap")
            ax.axhline(CHAOS, color="0.7", linewidth=0.8)
            ax.set_yscale("log")
            ax.set_title(f"{name}: {_NAMES[quantity]}", fontsize=9)
            ax.tick_params(labelsize=7)
    axes[0][0].legend(fontsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("step (the largest so far)", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _positive(values: np.ndarray) -> np.ndarray:
    """Zeros, which a logarithmic axis cannot show, as NaN."""
    return np.where(values > 0, values, np.nan)


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    return [float(f"{value:.{_DIGITS}g}") for value in tree]


def _arrays(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _arrays(value) for key, value in tree.items()}
    return np.asarray(tree)
