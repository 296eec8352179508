"""The metrics of several runs. Runs that repeat each other with other seeds are one band.

A point is a step and a value.
"""

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.analysis.contract import NoPicture
from vit_jax.workdir import lines as metric_lines

Lines = Sequence[tuple[int, Mapping[str, float]]]  # the lines of a run: step, numbers by name

MOST_FIELDS = 3  # that differ and still fit into a legend


class Band(NamedTuple):
    """A metric of several runs: mean, smallest and largest value at each step (N,)."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def read(workdir: str | os.PathLike[str]) -> Lines:
    """The lines of metrics.jsonl. Raises NoPicture if there are none."""
    good = metric_lines.read(workdir).good
    if not good:
        raise NoPicture(f"{workdir} has no metrics.jsonl: it is not a run, or has not logged yet")
    return [(line["step"], metric_lines.numbers(line)) for line in good]


def band(runs: Sequence[Lines], name: str) -> Band:
    """A metric at the steps at which all runs have it."""
    points = [{step: values[name] for step, values in lines if name in values} for lines in runs]
    steps = sorted(set.intersection(*map(set, points)))
    table = np.array([[of_run[step] for step in steps] for of_run in points])
    return Band(np.array(steps), table.mean(axis=0), table.min(axis=0), table.max(axis=0))


def groups(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The runs, by a label for each group whose fields are equal except for the seed.

    `configs` has the fields of each run that change its result. The label has the fields in which
    the groups differ. If they are many, it has the names of the folders.
    """
    same: dict[str, list[str]] = collections.defaultdict(list)
    for run, fields in configs.items():
        same[repr(sorted(_without_seed(fields).items()))].append(run)
    firsts = [_without_seed(configs[runs[0]]) for runs in same.values()]
    paths = dict.fromkeys(path for fields in firsts for path in fields)
    differing = [p for p in paths if len({repr(f.get(p)) for f in firsts}) > 1]
    named = {}
    for fields, runs in zip(firsts, same.values(), strict=True):
        there = [f"{path}={fields[path]}" for path in differing if path in fields]
        label = ", ".join(there) if 0 < len(differing) <= MOST_FIELDS else ", ".join(runs)
        seeds = f"{len(runs)} seeds" if len(runs) > 1 else ""
        if len(same) == 1:
            label = seeds
        named[f"{label} ({seeds})" if seeds and label != seeds else label] = runs
    return named


def _without_seed(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in fields.items() if path != "seed"}
