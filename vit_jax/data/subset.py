"""A subset of the images of a source, numbered from 0."""

import dataclasses

import numpy as np

from vit_jax.data.identity import Identity
from vit_jax.data.record import Record, Source, all_labels, is_multi_label, path_of


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

    def path(self, index: int) -> str:
        return path_of(self.source, int(self.ids[index]))

    def sample(self) -> list[int]:
        return self.source.sample()

    def identity(self) -> Identity:
        return self.source.identity()


def spread(source: Source, count: int) -> Source:
    """`count` images of `source` at equal distances, so of all classes if sorted. 0: all."""
    if not count or count >= len(source):
        return source
    return Subset(source, np.arange(count) * len(source) // count)


def number(examples: int, *, classes: int, per_class: int) -> int:
    """How many images `of_each_class` takes of a split; 0: unknown, as are its classes."""
    return per_class * classes if per_class else examples


def of_each_class(source: Source, count: int) -> Source:
    """`count` images of every class, at equal distances in their order. 0: all images.

    Raises ValueError if images have several labels, or a class has fewer images.
    """
    if not count:
        return source
    if count < 0 or is_multi_label(source):
        raise ValueError(
            f"config.data.per_class is {count}: it must not be negative, and is not for images of"
            " several classes"
        )
    labels, kept = all_labels(source), []
    for label in range(len(source.class_names) or labels.max() + 1):
        (ids,) = np.nonzero(labels == label)
        if len(ids) < count:
            name = repr(source.class_names[label]) if source.class_names else label
            raise ValueError(
                f"config.data.per_class is {count}, but {source.name} has only {len(ids)} images of"
                f" class {name}"
            )
        kept.append(ids[np.arange(count) * len(ids) // count])
    return Subset(source, np.sort(np.concatenate(kept)))
