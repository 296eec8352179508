"""The tables of a report: results of evaluations, and comparisons of runs."""

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.page.document import Rows
from vit_jax.report import words
from vit_jax.report.run import AVERAGE, COUNTS, EVAL, Run
from vit_jax.text import few

MOST_FIELDS = 6  # that differ between groups and have columns of their own
_SMALLER = ("loss", "ece")  # metrics that are best if they are small
LONGEST = 120  # letters of the value of a field
# The accuracy at one severity of a corruption, such as `eval_corrupt/top1_blur_3`.
_SEVERITY = re.compile(r"(?P<metric>.+/(?:ema_)?top1)_(?P<corruption>.+)_(?P<severity>\d{1,9})")


def of_run(run: Run) -> dict[str, Rows]:
    """The tables of the evaluators by title: the last and the best value of each metric."""
    matrices = _matrices(run)
    there = {name for name in run.names if _SEVERITY.fullmatch(name)} if matrices else set()
    by_evaluator: dict[str, list[list[str]]] = {}
    for name in run.names:
        if not name.startswith(EVAL) or name in there:
            continue
        evaluator, _, own = name.removeprefix(EVAL).rpartition("/")
        if own.removeprefix(AVERAGE) not in COUNTS:
            by_evaluator.setdefault(evaluator, []).append(_row(run, name))
    head = ["metric", "last", "at step", "best", "at step"]
    tables: dict[str, Rows] = {
        f"Results of {evaluator or 'the held-out images'}{_images(run, evaluator)}": [head, *rows]
        for evaluator, rows in by_evaluator.items()
    }
    return tables | matrices


def sorted_runs(runs: Sequence[Run]) -> Rows:
    """A table with a row for each run and its last results, the best run first."""
    names = _main(runs)
    head = ["run", *map(words.metric, names), "steps", "time in steps"]
    rows = [
        [
            run.name,
            *(_shown_mean([run], name) for name in names),
            f"{run.step:,}",
            words.duration(run.step_seconds) if run.step_seconds else "",
        ]
        for (run,) in _best_first([[run] for run in runs], names)
    ]
    return [head, *rows]


def differing(runs: Sequence[Run]) -> Rows:
    """A table of the fields of the configs that differ, with a column for each run."""
    paths = list(dict.fromkeys(path for run in runs for path in run.fields))
    rows = [
        [path, *(_field(run.fields, path) for run in runs)]
        for path in paths
        if len({repr(run.fields.get(path, ...)) for run in runs}) > 1
    ]
    return [["field", *(run.name for run in runs)], *rows]


def ablation(groups: Mapping[str, Sequence[Run]]) -> Rows:
    """A table with a row for each group of runs that differ only in the seed, the best mean first.

    It has the fields in which the groups differ, and the mean and the standard deviation of the
    last results.
    """
    paths = differing_between(groups)
    few_fields = 0 < len(paths) <= MOST_FIELDS
    names = _main([run for members in groups.values() for run in members])
    head = [*(paths if few_fields else ["runs"]), "seeds", *map(words.metric, names)]
    rows = []
    for members in _best_first(list(groups.values()), names):
        own = [_field(members[0].decisive, path) for path in paths]
        label = own if few_fields else [few(run.name for run in members)]
        rows.append([*label, str(len(members)), *(_shown_mean(members, name) for name in names)])
    return [head, *rows]


def differing_between(groups: Mapping[str, Sequence[Run]]) -> list[str]:
    """The fields, except the seed, in which groups differ; they are equal within a group."""
    firsts = [members[0].decisive for members in groups.values()]
    paths = dict.fromkeys(path for fields in firsts for path in fields if path != "seed")
    return [path for path in paths if len({repr(fields.get(path, ...)) for fields in firsts}) > 1]


def _row(run: Run, name: str) -> list[str]:
    points = run.points(name)
    step, last = points[-1]
    row = [words.metric(name).rpartition(": ")[2], words.value(name, last), f"{step:,}"]
    direction = run.directions.get(name) or ("min" if name.endswith(_SMALLER) else None)
    if direction is None:
        return [*row, "", ""]
    choose = max if direction == "max" else min
    step, best = choose(points, key=lambda point: point[1])
    return [*row, words.value(name, best), f"{step:,}"]


def _images(run: Run, evaluator: str) -> str:
    name = f"{EVAL}{evaluator}/count" if evaluator else f"{EVAL}count"
    counts = run.points(name)
    return f" ({counts[-1][1]:,.0f} images)" if counts else ""


def _matrices(run: Run) -> dict[str, Rows]:
    """Tables of the last accuracy by corruption and severity."""
    found: dict[str, dict[str, dict[int, str]]] = {}
    for name in run.names:
        if match := _SEVERITY.fullmatch(name):
            row = found.setdefault(match["metric"], {}).setdefault(match["corruption"], {})
            row[int(match["severity"])] = words.value(name, run.points(name)[-1][1])
    tables: dict[str, Rows] = {}
    for metric, rows in found.items():
        severities = sorted({severity for row in rows.values() for severity in row})
        head = ["severity", *map(str, severities)]
        body = [[name, *(row.get(s, "") for s in severities)] for name, row in rows.items()]
        tables[f"{words.metric(metric)} by corruption"] = [head, *body]
    return tables


def _main(runs: Sequence[Run]) -> list[str]:
    """The metrics of a comparison: those of the first runs first."""
    return list(dict.fromkeys(name for run in runs for name in run.main))


def _best_first(groups: Sequence[Sequence[Run]], names: Sequence[str]) -> list[Sequence[Run]]:
    """Groups of runs by the mean of the first metric; those that lack it come last, by the next."""

    def key(members: Sequence[Run]) -> list[tuple[bool, float]]:
        found = []
        for name in names:
            lasts = _lasts(members, name)
            largest = any(run.directions.get(name) == "max" for run in members)
            mean = statistics.mean(lasts) if lasts else 0.0
            found.append((not lasts, -mean if largest else mean))
        return found

    return sorted(groups, key=key)


def _lasts(runs: Sequence[Run], name: str) -> list[float]:
    """The last value of a metric in each of the runs that have it."""
    return [points[-1][1] for run in runs if (points := run.points(name))]


def _shown_mean(runs: Sequence[Run], name: str) -> str:
    """The mean of the last values, with the standard deviation of several runs."""
    lasts = _lasts(runs, name)
    if not lasts:
        return ""
    if len(lasts) == 1:
        return words.value(name, lasts[0])
    return words.spread(name, statistics.mean(lasts), statistics.stdev(lasts))


def _field(fields: Mapping[str, Any], path: str) -> str:
    text = str(fields[path]) if path in fields else "-"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
