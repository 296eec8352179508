"""A source whose labels are translated to the order of classes of a model."""

import numpy as np

from vit_jax.data.identity import Identity
from vit_jax.data.record import (
    UNKNOWN,
    Label,
    Record,
    Source,
    all_labels,
    is_multi_label,
    path_of,
)


class Relabelled:
    """`source` with label `numbers[label]` for every label, and the names in that order."""

    def __init__(
        self, source: Source, numbers: tuple[int, ...], *, names: tuple[str, ...] = ()
    ) -> None:
        """`names`: those of all classes, if there are more of them than the source has."""
        own = source.class_names
        assert len(set(numbers)) == len(own) and max(numbers) < len(names or own), numbers
        self._source, self._numbers, self.name = source, numbers, source.name
        ordered = sorted(zip(numbers, own, strict=True))
        self.class_names = names or tuple(name for _, name in ordered)

    def __len__(self) -> int:
        return len(self._source)

    @property
    def labels(self) -> np.ndarray:
        if self.multi_label:
            return self._moved(all_labels(self._source))
        numbers = np.array([*self._numbers, UNKNOWN], np.int32)  # the last is at index UNKNOWN
        return numbers[all_labels(self._source)]

    @property
    def multi_label(self) -> bool:
        return is_multi_label(self._source)

    def read(self, index: int) -> Record:
        record = self._source.read(index)
        return Record(record.data, self._label(record.label), record.path)

    def path(self, index: int) -> str:
        return path_of(self._source, index)

    def sample(self) -> list[int]:
        return [self._number(label) for label in self._source.sample()]

    def _label(self, label: Label) -> Label:
        return self._moved(label) if isinstance(label, np.ndarray) else self._number(label)

    def _number(self, label: int) -> int:
        # A negative label means that the image has no label.
        return self._numbers[label] if label >= 0 else label

    def _moved(self, labels: np.ndarray) -> np.ndarray:
        """Rows (..., K) of several labels, in the new order."""
        moved = np.zeros((*labels.shape[:-1], len(self.class_names)), labels.dtype)
        moved[..., list(self._numbers)] = labels
        return moved

    def identity(self) -> Identity:
        """The identity of the source: the model's order of classes does not change the data."""
        return self._source.identity()
