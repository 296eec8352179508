"""The page of a report."""

from collections.abc import Mapping, Sequence

from vit_jax import __version__
from vit_jax.analysis import bands
from vit_jax.page import document
from vit_jax.page.document import Rows, Section
from vit_jax.report import curves, facts, results
from vit_jax.report.run import Run

Pictures = Mapping[str, str]  # data: URLs by title


def render(runs: Sequence[Run], *, pictures: Mapping[str, Pictures], date: str) -> str:
    """The page of one or more runs. `pictures` are those of each run, by its workdir."""
    several = len(runs) > 1
    sections = [_comparison(runs)] if several else []
    for run in runs:
        own = pictures.get(run.workdir, {})
        sections.append(_of_run(run, own, name=run.name if several else ""))
    title = f"{len(runs)} runs compared" if several else f"Run {runs[0].name}"
    note = f"Drawn by vit_jax {__version__} at {date}."
    return document.render(title=title, note=note, sections=sections)


def _comparison(runs: Sequence[Run]) -> Section:
    named = bands.groups({run.name: run.decisive for run in runs})
    by_name = {run.name: run for run in runs}
    groups = {label: [by_name[one] for one in members] for label, members in named.items()}
    tables: dict[str, Rows] = {"Last results, the best run first": results.sorted_runs(runs)}
    between = results.differing_between(groups)
    if 1 < len(groups) < len(runs) or 0 < len(between) <= results.MOST_FIELDS:
        tables["Mean and standard deviation over seeds"] = results.ablation(groups)
    differing = results.differing(runs)
    if len(differing) > 1:
        tables["Fields of the configs that differ"] = differing
    return Section(
        name="Comparison", tables=tables, charts=curves.of_groups(groups), in_columns=True
    )


def _of_run(run: Run, pictures: Pictures, *, name: str) -> Section:
    return Section(
        name=name,
        warnings=facts.warnings(run),
        facts=facts.of(run),
        commands=facts.commands(run),
        tables=results.of_run(run),
        charts=curves.of_run(run),
        in_columns=True,
        pictures=pictures,
    )
