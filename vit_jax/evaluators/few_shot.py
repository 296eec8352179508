"""Few-shot classification: linear least squares on the features of a few images of each class.

The numbers are those of big_vision (evaluators/fewshot_lsr.py) for the same features: the same
images for a seed, features that are whitened by the mean and deviation of these images, a bias, and
targets of -1 and 1. They are computed in double precision on the host.

Shapes: N images, D features, K classes.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from vit_jax.data.record import Source, all_labels
from vit_jax.data.subset import Subset
from vit_jax.duration import Duration
from vit_jax.evaluators import features
from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.evaluators.features import Features
from vit_jax.objectives import Direction, Objective

BIAS = 100.0  # a constant feature, so large that its weight is almost not regularised
SMALLEST = 1e-5  # added to deviations
_ROWS = 4096  # images that are classified at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot(Evaluator):
    """Top-1 of least squares on a few training images of each class, the mean over seeds."""

    every: Duration = Duration()  # period in a run; unset: evaluate_every
    shots: tuple[int, ...] = (5, 10, 25)  # training images of each class
    # Strengths of the L2 penalty. Of several the one with the best mean top-1 on the held-out
    # images is reported, which is optimistic.
    l2: tuple[float, ...] = (1024.0,)
    seeds: int = 3  # choices of the training images

    needs_train: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise ValueError(f"shots is {self.shots}: each must be at least 1, and none be twice")
        if not self.l2 or not all(0 < one < math.inf for one in self.l2):
            raise ValueError(f"l2 is {self.l2}: each must be positive and finite")
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}: it must be at least 1")

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {f"top1_{shots}shot": "max" for shots in self.shots}

    def open(self, context: Context) -> Measure:
        train, held_out = features.labelled(context, evaluator="few_shot")
        chosen = choose(train, shots=max(self.shots), seeds=self.seeds)
        used = Subset(train, np.unique(np.concatenate(chosen, axis=None)))
        bad = features.bad_images(context, used)
        step = features.make_step(context)

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            known = features.of_split(context, used, params, step, bad=bad)
            known = known._replace(numbers=used.ids[known.numbers])
            asked = features.of_split(context, held_out, params, step)
            return self._measured(known, asked, chosen)

        return measure

    def _measured(
        self, known: Features, asked: Features, chosen: Sequence[np.ndarray]
    ) -> dict[str, float]:
        found: dict[str, float] = {}
        for shots in self.shots:
            by_seed = np.array(
                [_solved(known, ids[:, :shots]).accuracies(asked, l2=self.l2) for ids in chosen]
            )
            best = int(by_seed.mean(axis=0).argmax())
            found[f"top1_{shots}shot"] = float(by_seed[:, best].mean())
            found[f"std_{shots}shot"] = float(by_seed[:, best].std())
            if len(self.l2) > 1:
                found[f"l2_{shots}shot"] = self.l2[best]
        return found | {"count": len(asked.labels)}


def choose(train: Source, *, shots: int, seeds: int) -> list[np.ndarray]:
    """For each seed the numbers of `shots` images of each class: int64 (K, shots).

    Fewer shots are the first columns. Raises ValueError if a class has too few images.
    """
    labels, names = all_labels(train), train.class_names
    of_class = [np.flatnonzero(labels == number) for number in range(len(names))]
    if short := [number for number, ids in enumerate(of_class) if len(ids) < shots]:
        others = f", and {len(short) - 1} other classes too few" if len(short) > 1 else ""
        raise ValueError(
            f"few_shot needs {shots} training images of each class, but {train.name} has"
            f" {len(of_class[short[0]])} of class {names[short[0]]!r}{others}: give smaller shots"
        )
    generators = map(np.random.default_rng, range(seeds))
    return [np.array([rng.permutation(ids)[:shots] for ids in of_class]) for rng in generators]


def _solved(known: Features, ids: np.ndarray) -> "LeastSquares":
    """Least squares on the images with these numbers (K, shots) of the training split.

    Broken images, which an evaluation tolerates up to a share, are left out.
    """
    rows = np.minimum(np.searchsorted(known.numbers, ids.ravel()), len(known.numbers) - 1)
    rows = rows[known.numbers[rows] == ids.ravel()]
    return LeastSquares(known.values[rows], known.labels[rows], num_classes=len(ids))


class LeastSquares:
    """Linear classifiers of the same images for all strengths of the penalty."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, *, num_classes: int) -> None:
        """`x` are features (N, D), `labels` int (N,)."""
        x = x.astype(np.float64)
        self._mean, self._std = x.mean(axis=0), x.std(axis=0) + SMALLEST
        x = self._whitened(x)
        targets = 2.0 * np.eye(num_classes)[labels] - 1.0
        # The weights are left @ diag(1 / (values + l2)) @ right, by an eigendecomposition of the
        # smaller of the two products: (x'x + l2)^-1 x'y = x' (xx' + l2)^-1 y.
        if len(x) >= x.shape[1]:
            self._values, self._left = np.linalg.eigh(x.T @ x)
            self._right = self._left.T @ (x.T @ targets)
        else:
            self._values, vectors = np.linalg.eigh(x @ x.T)
            self._left, self._right = x.T @ vectors, vectors.T @ targets

    def accuracies(self, asked: Features, *, l2: Sequence[float]) -> np.ndarray:
        """The top-1 on other images for each strength, float64 (len(l2),)."""
        hits = np.zeros(len(l2))
        for first in range(0, len(asked.labels), _ROWS):
            part = slice(first, first + _ROWS)
            projected = self._whitened(asked.values[part].astype(np.float64)) @ self._left
            for place, strength in enumerate(l2):
                answers = (projected / (self._values + strength)) @ self._right
                hits[place] += (answers.argmax(axis=1) == asked.labels[part]).sum()
        return hits / len(asked.labels)

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """Whitened features with the constant for the bias, (N, D + 1)."""
        return np.pad((x - self._mean) / self._std, ((0, 0), (0, 1)), constant_values=BIAS)
