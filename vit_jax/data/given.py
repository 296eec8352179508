"""Images that a Python program gives to a run, instead of a dataset that a config names."""

import contextlib
import contextvars
import dataclasses
import operator
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vit_jax.data import identity
from vit_jax.data.arrays import ArraySource
from vit_jax.data.record import UNKNOWN, Record, Source
from vit_jax.text import few, shortened

TRAIN, HELD_OUT, BOTH = "train", "val", "all"
_SAMPLED = 256  # records that show whether a dataset is the same when the run is resumed


class Dataset(Protocol):
    """Any object with images and their classes, such as a list or a dataset of PyTorch's form.

    `read(index)`, or `[index]`, returns a pair: the image, as a path, the bytes of a file, or uint8
    (H, W) or (H, W, C); and the number of its class. It may also return a `Record`. Several threads
    call it. An attribute `class_names` may name the classes.
    """

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record | tuple[Any, int]: ...


Given = Dataset | tuple[np.ndarray, np.ndarray]  # or images uint8 (N, H, W[, C]), labels (N,)
_SPLITS: contextvars.ContextVar[Mapping[str, Source] | None] = contextvars.ContextVar(
    "splits", default=None
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenData:
    """Images that `vit_jax.train` or `evaluate` got. A config alone cannot open them."""

    label = "the dataset of the program"

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return tuple(_splits())

    def open(self, split: str, *, train_split: str) -> Source:
        there = _splits()
        if split == TRAIN and TRAIN not in there:
            raise ValueError(
                "an evaluator of the run needs its training images: give them to vit_jax.evaluate"
                " as source"
            )
        if split not in there:
            raise ValueError(f"the program gives no split {split!r}: choose {', '.join(there)}")
        return there[split]


@contextlib.contextmanager
def using(
    train: Given | None,
    held_out: Given | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Iterator[None]:
    """Within, `GivenData` opens these datasets. Without `held_out`, `train` is evaluated on too.

    Without `train` there is no split to train on. A dataset may name its classes itself; one that
    does not has `class_names`, or those of the other. Raises ValueError if a dataset is none, or
    has no names and no array of labels.
    """
    both = {TRAIN: train, HELD_OUT: held_out}
    given = {split: data for split, data in both.items() if data is not None}
    own = {split: _own_names(data) for split, data in given.items()}
    asked = None if class_names is None else tuple(class_names)
    common = asked or next(filter(None, own.values()), ()) or _numbers(*given.values())
    splits = {}
    for split, data in given.items():
        names = own[split] or common
        if asked is not None and names != asked:
            raise ValueError(
                f"class_names are {few(asked)}, but the {split} dataset has classes of its"
                f" own, {few(names)}: leave class_names out"
            )
        splits[split] = _source(data, split, names)
    if held_out is None:
        splits[BOTH] = splits[TRAIN]
    token = _SPLITS.set(splits)
    try:
        yield
    finally:
        _SPLITS.reset(token)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """A `Dataset` as the pipeline reads it."""

    name: str
    class_names: tuple[str, ...]
    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> Record:
        """Raises ValueError if the dataset returns no image and class."""
        path = f"{self.name}[{index}]"
        dataset: Any = self.dataset
        found = dataset.read(index) if hasattr(dataset, "read") else dataset[index]
        if isinstance(found, Record):
            return dataclasses.replace(found, label=self._class(found.label, path))
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(f"{path} is {type(found).__name__}: return a pair (image, class)")
        image, label = found
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            image = pathlib.Path(image).read_bytes()
        image = image if isinstance(image, bytes) else np.asarray(image)
        if not isinstance(image, bytes) and (image.dtype != np.uint8 or image.ndim not in (2, 3)):
            raise ValueError(
                f"{path} has an image of {image.dtype} {image.shape}: give uint8 (H, W) or"
                " (H, W, C), the bytes of a file, or its path"
            )
        return Record(image, self._class(label, path), path)

    def _class(self, label: Any, path: str) -> int:
        """The number of a class, or UNKNOWN. Raises ValueError for anything else."""
        try:
            number = operator.index(label)
        except TypeError:
            raise ValueError(
                f"{path} has the class {shortened(repr(label))}: give one whole number"
            ) from None
        if number != UNKNOWN and not 0 <= number < len(self.class_names):
            raise ValueError(
                f"{path} has class {number}: there are {len(self.class_names)} classes"
            )
        return number

    def sample(self) -> list[int]:
        return [int(record.label) for record in self._records()]

    def identity(self) -> identity.Identity:
        content: list[str | bytes] = []
        for record in self._records():
            image = record.data
            content += [str(record.label), image if isinstance(image, bytes) else image.tobytes()]
        part = identity.Part(examples=len(self), digest=identity.digest(content))
        return identity.identify("python", class_names=self.class_names, parts={self.name: part})

    def _records(self) -> Iterator[Record]:
        """Records that are spread evenly over the dataset, without those that cannot be read.

        The pipeline counts and reports those.
        """
        for index in np.unique(np.linspace(0, len(self) - 1, _SAMPLED).astype(int)):
            with contextlib.suppress(OSError):
                yield self.read(int(index))


def _splits() -> Mapping[str, Source]:
    if (splits := _SPLITS.get()) is None:
        raise ValueError(
            "the images of this run came from a Python program: use vit_jax.train and"
            " vit_jax.evaluate there, or name another dataset with config.data.source"
        )
    return splits


def _own_names(data: Given) -> tuple[str, ...]:
    return tuple(getattr(data, "class_names", ()))


def _source(data: Any, split: str, names: tuple[str, ...]) -> Source:
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], np.ndarray):
        return _arrays(*data, split=split, names=names)
    if all(hasattr(data, name) for name in ("name", "class_names", "read", "sample", "identity")):
        source: Source = data
        return source
    if not hasattr(data, "__len__") or not (hasattr(data, "read") or hasattr(data, "__getitem__")):
        raise ValueError(
            f"{type(data).__name__} is no dataset: give an object with __len__ and read(index), or"
            " a pair of arrays, images uint8 (N, H, W, C) and labels (N,)"
        )
    if not names:
        raise ValueError("the classes of the dataset have no names: give class_names")
    return DatasetSource(name=split, class_names=names, dataset=data)


def _arrays(images: np.ndarray, labels: Any, *, split: str, names: tuple[str, ...]) -> ArraySource:
    labels = np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{split} images are {images.dtype} {images.shape}: give uint8 (N, H, W) or"
            " (N, H, W, C)"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{split} labels are {labels.dtype} {labels.shape}: give a whole number for each of"
            f" {len(images)} images"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
        raise ValueError(
            f"{split} labels are {labels.min()} to {labels.max()}: there are {len(names)} classes"
        )
    return ArraySource(name=split, class_names=names, images=images, labels=labels.astype(np.int32))


def _numbers(*given: Any) -> tuple[str, ...]:
    """Numbers as names of classes, up to the largest label of arrays; () for other datasets."""
    arrays = [np.asarray(one[1]) for one in given if isinstance(one, tuple) and len(one) == 2]
    whole = [labels for labels in arrays if labels.size and labels.dtype.kind in "iu"]
    most = max((int(labels.max()) for labels in whole), default=-1)
    return tuple(map(str, range(most + 1)))
