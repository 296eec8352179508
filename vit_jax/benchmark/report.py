"""The JSON of a benchmark: one schema for all kinds, written and read (docs/benchmark.md)."""

import dataclasses
import datetime
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from vit_jax import config as config_lib
from vit_jax import plain_json
from vit_jax.benchmark.samples import Judged, Quantity
from vit_jax.config import Config
from vit_jax.parallel import machine as machine_lib

FORMAT = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What a benchmark found. `results` are plain values, which follow from what was measured."""

    measured: Mapping[str, Quantity]
    results: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Measured):
    """What a benchmark found, of which config, on which machine, and when."""

    benchmark: str  # its name on the command line
    date: str  # ISO 8601, in UTC
    machine: Mapping[str, Any]
    recipe: str  # as given with --config
    config: Config
    settings: Mapping[str, Any]  # how often things were measured

    @property
    def digest(self) -> str:
        """A digest of all fields of the config."""
        text = json.dumps(config_lib.to_fields(self.config), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make(
    found: Measured,
    *,
    benchmark: str,
    recipe: str,
    config: Config,
    machine: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Report:
    """A report with the date of now. `machine`: its facts before the measurement."""
    now = datetime.datetime.now(datetime.UTC)
    return Report(
        measured=found.measured,
        results=found.results,
        notes=[*found.notes, *machine_lib.busy(machine)],
        benchmark=benchmark,
        date=now.isoformat(timespec="seconds"),
        machine=machine,
        recipe=recipe,
        config=config,
        settings=settings,
    )


def to_json(report: Report) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "format": FORMAT,
        "benchmark": report.benchmark,
        "date": report.date,
        "machine": dict(report.machine),
        "config": {
            "recipe": report.recipe,
            "digest": report.digest,
            "fields": config_lib.to_fields(report.config),
        },
        "settings": dict(report.settings),
        "measured": {name: _quantity(one) for name, one in report.measured.items()},
        "results": dict(report.results),
        "notes": list(report.notes),
    }


def _quantity(one: Quantity) -> dict[str, Any]:
    found = {"unit": one.unit, "judged": one.judged, "median": one.median, "p90": one.p90}
    return {**found, "interval": one.interval, "rounds": one.rounds}


def read(path: pathlib.Path, *, benchmark: str) -> Report:
    """The report in a file that `benchmark ... --json` printed.

    Raises ValueError, with the path, if it is missing or damaged, has a newer format, or is of
    another benchmark.
    """
    try:
        return _read(plain_json.loads(path.read_text()), benchmark)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(
            f"{path} is not the JSON of a benchmark: {type(error).__name__} {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(content: Any, benchmark: str) -> Report:
    found, kind = content["format"], content["benchmark"]
    if found != FORMAT:
        raise ValueError(f"it has format {found!r}; this version reads format {FORMAT}")
    if kind != benchmark:
        raise ValueError(f"it is of benchmark {kind}, not of benchmark {benchmark}")
    return Report(
        benchmark=kind,
        date=str(content["date"]),
        machine={
            **content["machine"],
            "load": float(content["machine"]["load"]),
            "versions": {**content["machine"]["versions"]},
        },
        recipe=str(content["config"]["recipe"]),
        config=config_lib.of_fields(content["config"]["fields"]),
        settings={**content["settings"]},
        measured={name: _of_quantity(name, one) for name, one in content["measured"].items()},
        results={**content["results"]},
        notes=tuple(map(str, content["notes"])),
    )


def _of_quantity(name: str, one: Mapping[str, Any]) -> Quantity:
    rounds = tuple(tuple(map(float, part)) for part in one["rounds"])
    values = [value for part in rounds for value in part]
    if not rounds or not all(rounds) or not all(math.isfinite(v) and v > 0 for v in values):
        raise ValueError(f"measured.{name}.rounds must have positive numbers in every round")
    if one["judged"] not in get_args(Judged) or one["unit"] not in ("s", "bytes"):
        raise ValueError(f"measured.{name} has an unknown unit or way to judge")
    return Quantity(unit=one["unit"], rounds=rounds, judged=one["judged"])
