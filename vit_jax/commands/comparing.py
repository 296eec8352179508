"""The pictures that several runs have together."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure

from vit_jax.analysis import bands, curves, figures
from vit_jax.report import results
from vit_jax.report.run import Run
from vit_jax.training import reports

Groups = Mapping[str, Sequence[Run]]  # by label; runs that differ only in the seed


def draw(workdirs: Sequence[str], *, only: Sequence[str] = ()) -> dict[str, Figure]:
    """The pictures `only`, or all, by name. Runs that differ only in the seed are one group."""
    for workdir in workdirs:
        bands.read(workdir)  # raises NoPicture if there is nothing to draw
    runs = {run.workdir: run for run in reports.read(workdirs)}
    named = bands.groups({workdir: run.decisive for workdir, run in runs.items()})
    groups = {label: [runs[one] for one in members] for label, members in named.items()}
    return {name: PICTURES[name](groups) for name in only or PICTURES}


def _curves(groups: Groups) -> Figure:
    lines = {label: [run.lines for run in runs] for label, runs in groups.items()}
    return curves.curves(lines)


def _ablation(groups: Groups) -> Figure:
    title = "Last results: mean and standard deviation over seeds"
    return figures.table(results.ablation(groups), title=title)


PICTURES: dict[str, Callable[[Groups], Figure]] = {"curves": _curves, "ablation": _ablation}
