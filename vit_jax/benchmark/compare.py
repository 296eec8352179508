"""Compares a benchmark with an earlier one: what changed beyond noise."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from vit_jax.benchmark.report import Report
from vit_jax.benchmark.samples import Quantity, ratio
from vit_jax.config import Config
from vit_jax.parallel import machine
from vit_jax.training import run_config

_ABOUT_DATA = ("train_size", "num_classes")  # settings that change what is measured
Verdict = Literal["worse", "better", "same", "not judged"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A quantity before and now. `ratio` is now / before: above 1 is worse."""

    name: str
    old: Quantity
    new: Quantity
    ratio: float
    interval: tuple[float, float]
    verdict: Verdict


def check(
    old: Report,
    config: Config,
    found: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None = None,
    name: str = "--compare",
) -> list[str]:
    """Notes on what may explain a change: versions, load, fields that do not change results.

    `found` are facts about this machine, `settings` are the new ones if the flags about the data
    matter, and `name` is the flag that named the old report.

    Raises ValueError if the figures cannot be compared: another machine, or another config.
    """
    other = [
        f"{fact} {old.machine.get(fact)!r} there and {found[fact]!r} here"
        for fact in machine.SAME
        if old.machine.get(fact) != found[fact]
    ]
    if other:
        raise ValueError(f"{name} is of another machine: {'; '.join(other)}")
    differing = run_config.differences(old.config, config)
    if settings is not None:
        differing += [
            f"{flag} is {old.settings.get(flag)} there and {settings.get(flag)} here"
            for flag in _ABOUT_DATA
            if old.settings.get(flag) != settings.get(flag)
        ]
    if differing:
        raise ValueError(f"{name} is of another config: {'; '.join(differing)}")
    before, now = run_config.flat(old.config), run_config.flat(config)
    notes = [
        f"config.{path} was {before.get(path)!r} and is {now.get(path)!r}"
        for path in dict.fromkeys((*before, *now))
        if before.get(path) != now.get(path)
    ]
    notes += [f"at the earlier measurement, {note}" for note in machine.busy(old.machine)]
    return notes + [
        f"{part} was {old.machine['versions'].get(part) or 'missing'} and is {version or 'missing'}"
        for part, version in found["versions"].items()
        if old.machine["versions"].get(part, "") != version
    ]


def changes(old: Report, new: Report, *, tolerance: float) -> list[Change]:
    """What both reports measured. Changes of at most `tolerance`, a share, count as none."""
    return [
        _change(name, old.measured[name], one, tolerance)
        for name, one in new.measured.items()
        if name in old.measured
    ]


def regressed(found: list[Change]) -> bool:
    return any(change.verdict == "worse" for change in found)


def _change(name: str, old: Quantity, new: Quantity, tolerance: float) -> Change:
    middle, low, high = ratio(new, old)
    verdict: Verdict = "same"
    if "no" in (old.judged, new.judged):
        verdict = "not judged"
    elif low > 1 and middle > 1 + tolerance:
        verdict = "worse"
    elif high < 1 and middle < 1 / (1 + tolerance):
        verdict = "better"
    return Change(name=name, old=old, new=new, ratio=middle, interval=(low, high), verdict=verdict)


def to_json(found: list[Change], old: Report, notes: list[str], *, rule: str) -> dict[str, Any]:
    """The comparison as plain values, for the report that it belongs to."""
    return {
        "with": {"date": old.date, "digest": old.digest},
        "rule": rule,
        "differences": notes,
        "regressed": regressed(found),
        "changes": {
            change.name: {
                "old": change.old.median,
                "new": change.new.median,
                "ratio": change.ratio,
                "interval": change.interval,
                "verdict": change.verdict,
            }
            for change in found
        },
    }
