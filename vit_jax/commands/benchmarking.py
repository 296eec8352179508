"""Runs the benchmarks of the command `benchmark`, and shows and compares what they find."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.benchmark import (
    checkpoint,
    compare,
    page,
    report,
    samples,
    scaling,
    step,
    tables,
)
from vit_jax.benchmark import input as input_lib
from vit_jax.benchmark.report import Measured, Report
from vit_jax.commands import configs, planning
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.page import document
from vit_jax.parallel import agreement, machine, multihost
from vit_jax.planning import facts
from vit_jax.planning.table import aligned
from vit_jax.text import printable, printable_json

REGRESSED = 3  # the exit code if a comparison finds something worse


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Measures, and shows what the options ask for. Returns the exit code."""
    multihost.initialize()
    with agreement.Meeting():
        if options.html:
            document.check_installed("--html")
        config, notes = configs.read(options.config, overrides)
        config = planning.without_start(config)
        found, old, differences = machine.facts(), None, []
        if options.compare:  # before anything is measured
            old = report.read(options.compare, benchmark=options.benchmark)
            differences = compare.check(old, config, found, settings=_settings(options))
    for note in notes:
        _say(note)
    new = report.make(
        _MEASURES[options.benchmark](config, options),
        benchmark=options.benchmark,
        recipe=options.config,
        config=config,
        machine=found,
        settings=_settings(options),
    )
    compared = _Compared(old, new, differences, tolerance=options.tolerance / 100) if old else None
    if not multihost.is_primary():
        return 0
    _show(new, compared, options)
    return REGRESSED if compared and compare.regressed(compared.changes) else 0


class _Compared:
    """A comparison, for the text, the JSON and the page."""

    def __init__(
        self, old: Report, new: Report, differences: list[str], *, tolerance: float
    ) -> None:
        missing = [name for name in new.measured if name not in old.measured]
        self.old = old
        self.differences = [*differences, *(f"{name} was not measured then" for name in missing)]
        self.changes = compare.changes(old, new, tolerance=tolerance)
        self.rule = f"{samples.RULE}, and the ratio is more than {tolerance:.2%} away from it"

    def to_json(self) -> dict[str, Any]:
        return compare.to_json(self.changes, self.old, self.differences, rule=self.rule)

    @property
    def lines(self) -> list[str]:
        return [f"compared with {self.old.date}; {self.rule}", *self.differences]


def _step(config: Config, options: argparse.Namespace) -> Measured:
    known, peak = _known(config, options), options.peak * 1e12
    return step.measure(config, known, repeats=_repeats(options), peak=peak, say=_say)


def _input(config: Config, options: argparse.Namespace) -> Measured:
    against = None
    if options.step:
        against = report.read(options.step, benchmark="step")
        compare.check(against, config, machine.facts(), name="--step")
        if "step" not in against.measured:
            raise ValueError(f"{options.step}: measured.step is missing")
    with agreement.Meeting():  # the first process prints when all have succeeded
        return input_lib.measure(config, repeats=_repeats(options), step=against)


def _checkpoint(config: Config, options: argparse.Namespace) -> Measured:
    return checkpoint.measure(
        config,
        _known(config, options),
        workdir=options.workdir,
        warmup=options.warmup,
        steps=options.steps,
        saves=options.saves,
        say=_say,
    )


def _scaling(config: Config, options: argparse.Namespace) -> Measured:
    return scaling.measure(config, _known(config, options), repeats=_repeats(options), say=_say)


_MEASURES: dict[str, Callable[[Config, argparse.Namespace], Measured]] = {
    "step": _step,
    "input": _input,
    "checkpoint": _checkpoint,
    "scaling": _scaling,
}


def _known(config: Config, options: argparse.Namespace) -> DataFacts:
    sizes = {"train_size": options.train_size, "num_classes": options.num_classes}
    return facts.of_config(config, **sizes)


def _repeats(options: argparse.Namespace) -> step.Repeats:
    count = options.batches if options.benchmark == "input" else options.steps
    return step.Repeats(warmup=options.warmup, rounds=options.rounds, steps=count)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options that say how things were measured."""
    names = (
        *("train_size", "num_classes", "warmup", "rounds", "steps", "batches", "saves", "peak"),
    )
    return {name: vars(options)[name] for name in names if vars(options).get(name)}


def _say(text: str) -> None:
    if multihost.is_primary():
        print(printable(text), file=sys.stderr, flush=True)


def _show(new: Report, compared: _Compared | None, options: argparse.Namespace) -> None:
    shown = {"Measured": tables.measured(new)}
    if new.benchmark == "scaling":
        shown["Scaling"] = tables.scaling(new)
    else:
        shown["Results"] = tables.results(new)
    lines = compared.lines if compared else []
    if compared:
        shown["Changes"] = tables.changes(compared.changes)
    if options.json:
        comparison = {"comparison": compared.to_json()} if compared else {}
        print(printable_json(report.to_json(new) | comparison))
    else:
        _print(new, shown, lines)
    if options.html:  # last: if it cannot be written, the figures are not lost
        document.write(options.html, page.render(new, tables=shown, compared=lines))


def _print(new: Report, shown: Mapping[str, tables.Rows], lines: Sequence[str]) -> None:
    text = [f"{new.benchmark} of {new.recipe} ({new.digest})", machine.described(new.machine)]
    for rows in shown.values():
        text += ["", *aligned(rows)]
    text += ["", *(f"note: {note}" for note in new.notes), *lines]
    for line in text:
        print(printable(line).rstrip())
