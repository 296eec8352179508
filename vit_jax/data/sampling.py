"""Which images a run trains on, in which order: pure functions of the seed and the sample index.

Shapes: N images, C classes, R samples. An epoch is N samples.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from vit_jax.data.counter import shuffled, shuffled_ids
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, Source, all_labels, is_multi_label

Order = Callable[[np.ndarray], np.ndarray]  # sample indices int64 (R,) -> ids of images int64 (R,)


class Sampling(Protocol):
    """An entry of `SAMPLINGS`: a dataclass whose fields are its part of the config."""

    def order(self, source: Source, /, *, seed: int) -> tuple[Order, str]:
        """The order of the images of a source, and a note for the user, or "".

        Raises ValueError if the source lacks what it needs, such as labels.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every image once in each epoch."""

    def order(self, source: Source, /, *, seed: int) -> tuple[Order, str]:
        return functools.partial(shuffled_ids, size=len(source), seed=seed), ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Balanced:
    """Every class equally often, or by a power of the number of its images.

    Each epoch has the same number of samples of a class. They go through the images of the class
    in a new random order each time, so all images of a class are seen equally often.
    """

    # The share of a class is proportional to the number of its images to this power: 0: all classes
    # are equal, 0.5: square root, 1: as uniform.
    class_power: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.class_power <= 1:
            raise ValueError(f"config.data.class_power is {self.class_power}: it must be in [0, 1]")

    def order(self, source: Source, /, *, seed: int) -> tuple[Order, str]:
        if is_multi_label(source):
            raise ValueError(
                f"config.data.sampling is balanced, but images of {source.name} have several"
                " classes: set it to uniform"
            )
        labels = all_labels(source)
        if missing := np.count_nonzero(labels == UNKNOWN):
            raise ValueError(
                f"config.data.sampling is balanced, but {missing} of {len(labels)} images of"
                f" {source.name} have no label: {TRAIN_ON_LABELLED}, or set it to uniform"
            )
        counts = np.bincount(labels, minlength=len(source.class_names))
        quotas = class_quotas(counts, power=self.class_power)
        by_class = np.argsort(labels, kind="stable")
        order = functools.partial(
            balanced_ids, counts=counts, quotas=quotas, by_class=by_class, seed=seed
        )
        return order, _note(counts, quotas)


# By the name in a config.
SAMPLINGS: dict[str, type[Sampling]] = {"uniform": Uniform, "balanced": Balanced}


def class_quotas(counts: np.ndarray, *, power: float) -> np.ndarray:
    """How often each class is in an epoch, int64 (C,), for its number of images, int (C,).

    The sum is that of `counts`. A class with images is there at least once.
    """
    total = int(counts.sum())
    weights = np.where(counts > 0, counts.astype(np.float64) ** power, 0)
    exact = total * weights / weights.sum()
    quotas = np.maximum(np.floor(exact).astype(np.int64), counts > 0)
    left = total - int(quotas.sum())
    if left > 0:  # to the largest remainders, the lower class first
        quotas[np.argsort(quotas - exact, kind="stable")[:left]] += 1
    for _ in range(-left):
        quotas[quotas.argmax()] -= 1
    return quotas


def balanced_ids(
    indices: np.ndarray,
    *,
    counts: np.ndarray,
    quotas: np.ndarray,
    by_class: np.ndarray,
    seed: int,
) -> np.ndarray:
    """The ids int64 (R,) of sample indices (R,): `quotas` (C,) of each class in each epoch.

    `by_class` (N,) has the ids of class 0, of class 1, and so on, `counts` (C,) of each.
    """
    size, ends = len(by_class), np.cumsum(quotas)
    places = shuffled_ids(indices, size=size, seed=seed)  # in an epoch that is sorted by class
    classes = np.searchsorted(ends, places, side="right")
    visits = indices // size * quotas[classes] + places - (ends - quotas)[classes]
    first, number = (np.cumsum(counts) - counts)[classes], counts[classes]
    rounds, inside = np.divmod(visits, number)
    turns = zip(classes.tolist(), rounds.tolist(), strict=True)
    seeds = [_class_seed(seed, label, turn) for label, turn in turns]
    within = shuffled(inside.tolist(), sizes=number.tolist(), seeds=seeds)
    return by_class[first + within]


@functools.lru_cache(maxsize=2**16)
def _class_seed(seed: int, label: int, turn: int) -> int:
    """The seed of the order in which the images of a class are gone through."""
    words = [seed % 2**64, turn, label, *b"class"]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0])


def _note(counts: np.ndarray, quotas: np.ndarray) -> str:
    there = counts > 0
    held, seen = quotas[there], quotas[there] / counts[there]
    return (
        f"note: data.sampling is balanced: an epoch is {counts.sum():,} samples, {_span(held)} of"
        f" each of {len(held)} classes, and each image is in it {_span(seen)} times"
    )


def _span(values: np.ndarray) -> str:
    low, high = f"{values.min():,.4g}", f"{values.max():,.4g}"
    return low if low == high else f"{low} to {high}"
