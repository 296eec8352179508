"""What every source of images provides: records by index."""

import dataclasses
from typing import Protocol

import numpy as np

from vit_jax.data.identity import Identity

UNKNOWN = -1  # the label of an image without a known class, as in TensorFlow Datasets
TRAIN_ON_LABELLED = "set config.data.train_split to images that have labels"


class LabelError(ValueError):
    """A label that is not a class of its dataset."""


Label = int | np.ndarray


@dataclasses.dataclass(frozen=True)
class Record:
    """One labelled image, not decoded."""

    data: bytes | np.ndarray  # an encoded file, or uint8 (H, W) or (H, W, C)
    # Index of a class, or UNKNOWN; in a source of several labels uint8 (K,), 1 for its classes.
    label: Label
    path: str  # name of this record in messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the design of a run needs to know about its data."""

    train_size: int  # images to train on
    class_names: tuple[str, ...] = ()  # by label; () if images have no labels
    num_classes: int = 0
    multi_label: bool = False  # whether an image may have several classes, or none of them


class Source(Protocol):
    """A split of a dataset with random access; `read` is called from several threads.

    A source may also have `multi_label` (see `is_multi_label`), `labels` (see `all_labels`) and
    `path` (see `path_of`).
    """

    @property
    def name(self) -> str:
        """The name of this split in messages."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record: ...

    def sample(self) -> list[int]:
        """Labels of a sample of the images, UNKNOWN included.

        [] if every image has a label, and with `multi_label`, where no class is an answer too.
        """

    def identity(self) -> Identity:
        """A summary of the split, to find changes at a later start. This may take a while."""


def is_multi_label(source: Source) -> bool:
    """Whether an image may have several classes, or none of them. A source need not say so."""
    return bool(getattr(source, "multi_label", False))


def path_of(source: Source, index: int) -> str:
    """The path of an image, or its number in a source whose images are not files.

    A source of files has the method `path`.
    """
    path = getattr(source, "path", None)
    return path(index) if path else str(index)


def all_labels(source: Source) -> np.ndarray:
    """The label of every image, int32 (N,), or uint8 (N, K) with `multi_label`. May take a while.

    The attribute `labels` of a source, or else the labels of its records.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        labels = [source.read(index).label for index in range(len(source))]
    return np.asarray(labels)
