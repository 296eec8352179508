"""What every source of images gives: records by index."""

import dataclasses
from typing import Protocol

import numpy as np

from vit_jax.data.identity import Identity

UNKNOWN = -1  # the label of an image whose class nobody tells, as TensorFlow Datasets has it
TRAIN_ON_LABELLED = "set config.data.train_split to images that have labels"


class LabelError(ValueError):
    """A label that is no class of its dataset."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One labelled image, not decoded."""

    data: bytes | np.ndarray  # an encoded file, or uint8 (H, W) or (H, W, C)
    label: int  # of a class, or UNKNOWN
    path: str  # what a message calls this record


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What the design of a run needs to know of its data."""

    train_size: int  # images to train on
    class_names: tuple[str, ...] = ()  # by label; () where the images have none
    num_classes: int = 0


class Source(Protocol):
    """A split of a dataset, read at random; `read` is called from several threads."""

    @property
    def name(self) -> str:
        """What a message calls this split."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record: ...

    def sample(self) -> list[int]:
        """Labels of images from all over the split, UNKNOWN among them; [] where all have one."""

    def identity(self) -> Identity:
        """What defines the split, to find at a later start what changed; may take a while."""
