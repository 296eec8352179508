"""Repeated measurements: their median and spread, and whether two sets of them differ."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np

CONFIDENCE = 0.99
RULE = (
    f"beyond noise: the {CONFIDENCE:.0%} bootstrap interval of the ratio of the medians, drawn from"
    " rounds and from the measurements of each round, excludes 1"
)
_DRAWS = 2000

# How a quantity is compared: by its repetitions; exactly, because the same program always gives the
# same value; or not at all, because it was measured once.
Judged = Literal["repeated", "exact", "no"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """One thing that was measured, smaller is better; at least one round of positive numbers."""

    unit: Literal["s", "bytes"]
    rounds: tuple[tuple[float, ...], ...]
    judged: Judged = "repeated"

    @property
    def values(self) -> list[float]:
        return [value for part in self.rounds for value in part]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p90(self) -> float:
        return float(np.percentile(self.values, 90))

    @property
    def interval(self) -> tuple[float, float]:
        """The bootstrap interval of the median."""
        return _interval(_medians(self.rounds))


def once(value: float, *, unit: Literal["s", "bytes"], exact: bool = False) -> Quantity:
    """A quantity that was measured once."""
    return Quantity(unit=unit, rounds=((value,),), judged="exact" if exact else "no")


def in_rounds(values: Sequence[float], *, rounds: int) -> tuple[tuple[float, ...], ...]:
    """Measurements in a row as `rounds` parts of equal length."""
    size = len(values) // rounds
    return tuple(tuple(values[i * size : (i + 1) * size]) for i in range(rounds))


def ratio(new: Quantity, old: Quantity) -> tuple[float, float, float]:
    """The ratio of the medians, and the ends of its bootstrap interval."""
    low, high = _interval(_medians(new.rounds) / _medians(old.rounds, seed=1))
    return new.median / old.median, low, high


def _interval(draws: np.ndarray) -> tuple[float, float]:
    rest = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(draws, [rest, 100 - rest])
    return float(low), float(high)


def _medians(rounds: Sequence[Sequence[float]], *, seed: int = 0) -> np.ndarray:
    """Medians (draws,) of resampled measurements: of rounds, then of each chosen round.

    Neighbours in time resemble each other, so single measurements alone would promise too much.
    """
    random = np.random.default_rng(seed)
    lengths = np.array([len(part) for part in rounds])
    table = np.array([[*part, *[0.0] * (lengths.max() - len(part))] for part in rounds])
    chosen = random.integers(0, len(rounds), (_DRAWS, len(rounds), 1))
    places = random.random((_DRAWS, len(rounds), lengths.max())) * lengths[chosen]
    return np.median(table[chosen, places.astype(int)], axis=(1, 2))
