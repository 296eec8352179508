"""What a classifier answered for every held-out image, in the order of the split.

Shapes: N images of the split, k answers for each, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vit_jax.data.record import UNKNOWN, Source, is_multi_label
from vit_jax.objectives import ANSWERS, Answers, Objective
from vit_jax.parallel.mesh import replicated


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImage:
    """The answers for all images of a split."""

    source: Source
    labels: np.ndarray  # int32 (N,), UNKNOWN for an image without a label
    counted: np.ndarray  # bool (N,), False for a broken image and for one without a label
    classes: np.ndarray  # int32 (N, k), the most probable first; no meaning unless counted
    probabilities: np.ndarray  # float32 (N, k)

    @property
    def broken(self) -> np.ndarray:
        """Whether an image could not be read, bool (N,). Its label may be unknown."""
        return ~self.counted & (self.labels != UNKNOWN)

    def per_class(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """The number of images that count, and of those that are predicted right: (K,) each."""
        matrix = self.confusion(num_classes)
        return matrix.sum(axis=1), np.diagonal(matrix)

    def confusion(self, num_classes: int) -> np.ndarray:
        """The number of images of each class (rows) that are predicted as each class: (K, K)."""
        labels, predicted = self.labels[self.counted], self.classes[self.counted, 0]
        cells = labels.astype(np.int64) * num_classes + predicted
        return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


class Recorder:
    """Keeps the answers of the last measure: that of the averaged parameters, if there are any."""

    def __init__(self) -> None:
        self._source: Source | None = None
        self._parts: list[dict[str, jax.Array]] = []

    def begin(self, source: Source) -> None:
        """Forgets earlier answers. The next batches are those of `source`."""
        self._source, self._parts = source, []

    def take(self, results: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Keeps the rows of a batch, and returns its sums."""
        sums = dict(results)
        self._parts.append(sums.pop(ANSWERS))
        return sums

    def result(self) -> PerImage:
        """The answers for the images of the last measure."""
        assert self._source is not None, "nothing was measured"
        names, size = self._parts[0], len(self._source)
        rows = {n: np.concatenate([np.asarray(part[n]) for part in self._parts]) for n in names}
        return PerImage(source=self._source, **{name: array[:size] for name, array in rows.items()})


def check(objective: Objective, source: Source) -> None:
    """Raises ValueError if there is no single class to predict for an image."""
    if not objective.classifies:
        raise ValueError("predictions need an objective that classifies images: leave them out")
    if is_multi_label(source):
        raise ValueError(
            f"predictions need one class of each image, and images of {source.name} may have"
            " several: leave them out"
        )


def rows(batch: Mapping[str, jax.Array], answers: Answers) -> dict[str, jax.Array]:
    """The fields of `PerImage` for a batch. Every process gets all rows of the global batch."""
    found = {
        "labels": batch["label"],
        "counted": batch["mask"],
        "classes": answers.classes,
        "probabilities": answers.probabilities,
    }
    return {name: replicated(array) for name, array in found.items()}
