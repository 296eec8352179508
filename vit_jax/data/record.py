"""What every source of images provides: records by index."""

import dataclasses
from typing import Protocol

import numpy as np

from vit_jax.data.identity import Identity

UNKNOWN = -1  # the label of an image without a known class, as in TensorFlow Datasets
TRAIN_ON_LABELLED = "set config.data.train_split to images that have labels"


class LabelError(ValueError):
    """A label that is not a class of its dataset."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One labelled image, not decoded."""

    data: bytes | np.ndarray  # an encoded file, or uint8 (H, W) or (H, W, C)
    label: int  # index of a class, or UNKNOWN
    path: str  # name of this record in messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the design of a run needs to know about its data."""

    train_size: int  # images to train on
    class_names: tuple[str, ...] = ()  # by label; () if images have no labels
    num_classes: int = 0


class Source(Protocol):
    """A split of a dataset with random access; `read` is called from several threads."""

    @property
    def name(self) -> str:
        """The name of this split in messages."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names by label."""

    @property
    def labels(self) -> np.ndarray:
        """The label of every image, int32 (N,), UNKNOWN included. Reading them may take a while."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record: ...

    def sample(self) -> list[int]:
        """Labels of a sample of the images, UNKNOWN included; [] if every image has a label."""

    def identity(self) -> Identity:
        """A summary of the split, to find changes at a later start. This may take a while."""
