"""Makes the plans that the command `plan` shows."""

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax

from vit_jax.benchmark import report
from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.page import document
from vit_jax.parallel import machine
from vit_jax.planning import (
    advice,
    changes,
    compiling,
    facts,
    page,
    plan,
    scaling,
    search,
    table,
    topologies,
)
from vit_jax.planning.compiling import Compiler
from vit_jax.planning.job import Job, Result, versions
from vit_jax.planning.plan import Plan
from vit_jax.text import printable, printable_json

_PROCESSES = 4  # more compilers than this need too much memory
_Tables = dict[str, list[tuple[str, ...]]]  # rows by title


@dataclasses.dataclass(kw_only=True)
class _Found:
    """What a call has found, for the text, the JSON and the page."""

    plans: list[Plan]
    changes: list[list[tuple[changes.Change, float]]]  # of each plan that does not fit
    points: list[scaling.Point] = dataclasses.field(default_factory=list)
    tables: _Tables = dataclasses.field(default_factory=dict)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Plans, and shows what the options ask for."""
    jax.config.update("jax_platforms", "cpu")  # libtpu is a compiler here: there need not be a TPU
    names = [name for given in options.topology for name in given.split(",")]
    wanted = [topologies.parse(name) for name in names]
    if options.scaling and options.scaling < wanted[0].chips:
        raise ValueError(
            f"--scaling {options.scaling} is less than the {wanted[0].chips} chips of {names[0]}:"
            " it is the number of chips up to which larger sizes are planned"
        )
    if options.html:
        document.check_installed("--html")
    config, notes = configs.read(options.config, overrides)
    config = without_start(config)
    known = facts.of_config(config, train_size=options.train_size, num_classes=options.num_classes)
    for note in notes:
        print(printable(note), file=sys.stderr)
    decoding = _decoding(options, config)
    jobs = [Job(config=config, facts=known, topology=topology) for topology in wanted]
    if options.search or options.scaling:
        jobs = _scanned(jobs)
    processes = min(machine.host_cores(), _PROCESSES)
    with compiling.Compiler(limit=options.limit, processes=processes, report=_progress) as compiler:
        found = _find(compiler, jobs, options, decoding)
    _show(found, options)
    return 0


def _scanned(jobs: list[Job]) -> list[Job]:
    """The jobs with scanned blocks, of which many can be compiled; says so if that is a change."""
    found = [changes.scanned(job) for job in jobs]
    if found != jobs:
        _progress(
            "note: --search and --scaling compile scanned blocks, in a fraction of the time; a long"
            " run on TPUs unrolls its blocks where they fit, and a step takes 7 to 8% less"
        )
    return found


def _decoding(options: argparse.Namespace, config: Config) -> advice.Decoding | None:
    """How fast a core decodes, if --input-json or --decoded says it.

    Prints a note if other images were decoded than the config has. Raises ValueError for a file
    that is not the JSON of `benchmark input`.
    """
    if not options.input_json:
        return advice.Decoding(per_core=options.decoded) if options.decoded else None
    found = report.read(options.input_json, benchmark="input")
    rate, cores = (found.results.get(name) for name in ("images_per_second_per_core", "cores"))
    if not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise ValueError(
            f"{options.input_json}: results.images_per_second_per_core is {rate!r}, not a positive"
            " number"
        )
    used = found.config
    if (used.data, used.image_size, used.augment) != (
        config.data,
        config.image_size,
        config.augment,
    ):
        _progress(
            f"note: {options.input_json} was measured with other data, sizes or augmentations"
            f" ({found.recipe})"
        )
    return advice.Decoding(per_core=rate, cores=cores if isinstance(cores, int) else 0)


def _progress(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def without_start(config: Config) -> Config:
    """The config of a run that starts from new parameters, which has the same step.

    Raises ValueError if only the checkpoint says which model it is.
    """
    if not config.init_from:
        return config
    if not config.model.name:
        raise ValueError(
            "config.model.name is empty: the checkpoint of config.init_from is not read here; name"
            " its model, such as --config.model.name=B/16"
        )
    return dataclasses.replace(config, init_from="", init_state="parameters")


def _find(
    compiler: Compiler,
    jobs: Sequence[Job],
    options: argparse.Namespace,
    decoding: advice.Decoding | None,
) -> _Found:
    price = options.price

    def one(job: Job) -> tuple[Plan, _Tables]:
        if not options.search:
            return plan.of_run(compiler, job, price=price), {}
        own, searched = compiler.both(
            lambda: plan.of_run(compiler, job, price=price),
            lambda: compiler.both(
                lambda: search.fastest(compiler, job, price=price),
                lambda: search.largest(compiler, job),
            ),
        )
        return own, _searched(own, *searched)

    results = [
        (dataclasses.replace(own, decoding=decoding), tables)
        for own, tables in compiler.each(one, jobs)
    ]
    found = _Found(plans=[own for own, _ in results], changes=[])
    for own, tables in results:
        fits = own.result.fits
        found.changes.append([] if fits else changes.that_fit(compiler, own.job, own.step))
        found.tables |= tables
    if options.scaling:
        found.points = scaling.table(compiler, jobs[0], most=options.scaling, price=price)
        found.tables["Scaling over chips"] = table.scaling(found.points)
    return found


def _searched(
    own: Plan,
    fastest: tuple[list[tuple[search.Candidate, Plan]], list[search.Candidate]],
    largest: list[tuple[str, int, Result]],
) -> _Tables:
    """The tables of a search, by their titles."""
    compiled, probed = fastest
    name = own.topology.name
    return {
        f"{name}: fastest of {len(probed)} candidates": table.candidates(compiled, own=own),
        f"{name}: largest batch": table.batches(largest, own.topology),
    }


def _show(found: _Found, options: argparse.Namespace) -> None:
    if options.html:
        overview = {"Plans": table.overview(found.plans), **found.tables}
        title = f"Plan of {options.config}"
        text = page.render(
            found.plans,
            title=title,
            tables=overview,
            points=found.points,
        )
        document.write(options.html, text)
    if options.json:
        print(printable_json(_content(found)))
        return
    for line in _lines(found):
        print(printable(line))


def _content(found: _Found) -> dict[str, Any]:
    plans = []
    for one, fits in zip(found.plans, found.changes, strict=True):
        values = plan.to_json(one)
        if not one.result.fits:
            values["changes_that_fit"] = [
                {"fields": dict(change.fields), "peak": needed, "price": change.price}
                for change, needed in fits
            ]
        plans.append(values)
    return {
        "format": 1,
        "versions": {
            name: version
            for one in found.plans
            for name, version in versions(one.topology.chip.platform).items()
        },
        "predicted": table.note(found.plans),
        "plans": plans,
        "scaling": [
            {"kind": point.kind, "efficiency": point.efficiency, **plan.to_json(point.plan)}
            for point in found.points
        ],
        "tables": found.tables,
    }


def _lines(found: _Found) -> list[str]:
    lines = table.aligned(table.overview(found.plans))
    for one, fits in zip(found.plans, found.changes, strict=True):
        lines += table.details(one, changes=fits)
    for title, rows in found.tables.items():
        lines += ["", title, *(f"  {line}" for line in table.aligned(rows))]
    return [*lines, "", table.note(found.plans)]
