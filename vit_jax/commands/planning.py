"""Makes the plans that the command `plan` shows."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.planning import changes, compiling, facts, plan, table, topologies
from vit_jax.planning.job import Job, versions
from vit_jax.planning.plan import Plan
from vit_jax.text import printable, printable_json


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Plans, and prints what the options ask for."""
    names = [name for given in options.topology for name in given.split(",")]
    wanted = [topologies.parse(name) for name in names]
    config, notes = configs.read(options.config, overrides)
    config = without_start(config)
    known = facts.of_config(config, train_size=options.train_size, num_classes=options.num_classes)
    for note in notes:
        print(printable(note), file=sys.stderr)
    jobs = [Job(config=config, facts=known, topology=topology) for topology in wanted]
    processes = max(1, (os.cpu_count() or 1) // 2)
    with compiling.Compiler(limit=options.limit, processes=processes) as compiler:
        plans = [plan.make(compiler, job, price=options.price) for job in jobs]
        fits = [
            [] if one.result.fits else changes.that_fit(compiler, one.job, one.step)
            for one in plans
        ]
    content = _content(options, plans, fits)
    if options.json:
        print(printable_json(content))
    else:
        for line in _lines(plans, fits, decoded=options.decoded):
            print(printable(line))
    return 0


def without_start(config: Config) -> Config:
    """The config of a run that starts from new parameters, which has the same step.

    Raises ValueError if only the checkpoint says which model it is.
    """
    if not config.init_from:
        return config
    if not config.model.name:
        raise ValueError(
            "config.model.name is empty: plan does not read the checkpoint of config.init_from;"
            " name its model, such as --config.model.name=B/16"
        )
    return dataclasses.replace(config, init_from="", init_state="parameters")


def _content(
    options: argparse.Namespace,
    plans: Sequence[Plan],
    fits: Sequence[list[tuple[changes.Change, float]]],
) -> dict[str, Any]:
    found = []
    for one, changed in zip(plans, fits, strict=True):
        values = plan.to_json(one, decoded=options.decoded)
        if not one.result.fits:
            values["changes_that_fit"] = [
                {"fields": dict(change.fields), "peak": needed, "price": change.price}
                for change, needed in changed
            ]
        found.append(values)
    return {"format": 1, "versions": versions(), "predicted": table.NOTE, "plans": found}


def _lines(
    plans: Sequence[Plan],
    fits: Sequence[list[tuple[changes.Change, float]]],
    *,
    decoded: float,
) -> list[str]:
    lines = table.overview(plans)
    for one, changed in zip(plans, fits, strict=True):
        lines += table.details(one, changes=changed, decoded=decoded)
    return [*lines, "", table.NOTE]
