"""A source whose classes have other numbers: those of a model that has them in another order."""

from vit_jax.data.identity import Identity
from vit_jax.data.record import Record, Source


class Relabelled:
    """`source` with label `numbers[label]` for every label, and the names in that order."""

    def __init__(self, source: Source, numbers: tuple[int, ...]) -> None:
        assert sorted(numbers) == list(range(len(source.class_names))), numbers
        self._source, self._numbers = source, numbers
        ordered = sorted(zip(numbers, source.class_names, strict=True))
        self.name, self.class_names = source.name, tuple(name for _, name in ordered)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, index: int) -> Record:
        record = self._source.read(index)
        return Record(record.data, self._number(record.label), record.path)

    def sample(self) -> list[int]:
        return [self._number(label) for label in self._source.sample()]

    def _number(self, label: int) -> int:
        # Below zero is no class: an image that nobody labelled.
        return self._numbers[label] if label >= 0 else label

    def identity(self) -> Identity:
        """That of the source: what the model calls its classes is no matter of the data."""
        return self._source.identity()
