"""A subset of the images of a source, numbered from 0."""

import dataclasses

import numpy as np

from vit_jax.data.identity import Identity
from vit_jax.data.record import Record, Source, all_labels, is_multi_label


@dataclasses.dataclass(frozen=True)
class Subset:
    """The images of `source` with the indices `ids`."""

    source: Source
    ids: np.ndarray  # int (N,)

    @property
    def name(self) -> str:
        return f"{len(self.ids)} images of {self.source.name}"

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def labels(self) -> np.ndarray:
        return all_labels(self.source)[self.ids]

    @property
    def multi_label(self) -> bool:
        return is_multi_label(self.source)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Record:
        return self.source.read(int(self.ids[index]))

    def sample(self) -> list[int]:
        return self.source.sample()

    def identity(self) -> Identity:
        return self.source.identity()


def spread(source: Source, count: int) -> Source:
    """`count` images of `source` at equal distances, so of all classes if sorted. 0: all."""
    if not count or count >= len(source):
        return source
    return Subset(source, np.arange(count) * len(source) // count)
