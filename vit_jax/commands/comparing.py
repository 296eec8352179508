"""Several runs in one picture of curves: which of them repeat each other, and what differs."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from vit_jax.analysis import curves
from vit_jax.training import run_config

MOST_FIELDS = 3  # that differ and still fit into a legend


def draw(workdirs: Sequence[str]) -> Figure:
    """The curves of runs. Runs whose configs differ only in the seed are one band."""
    lines = {workdir: curves.read(workdir) for workdir in workdirs}
    named = groups({w: run_config.decisive(run_config.read_config(w)) for w in workdirs})
    return curves.curves({label: [lines[w] for w in runs] for label, runs in named.items()})


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
