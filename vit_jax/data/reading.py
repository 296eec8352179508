"""Reads one image of a source with its label; a broken image can be replaced by another one."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from vit_jax.data.bad_images import BadImages
from vit_jax.data.counter import NUMBERS, draw
from vit_jax.data.preprocess import BrokenImageError
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, Label, LabelError, Source
from vit_jax.errors import RunFailed

Decode = Callable[[bytes | np.ndarray], np.ndarray]
Unlabelled = Literal["refuse", "skip", "read"]  # what to do with an image that has no label


def read(
    source: Source, index: int, decode: Decode, *, bad: BadImages, unlabelled: Unlabelled
) -> tuple[np.ndarray | None, Label]:
    """Pixels and label of a record. If it is broken, pixels are None, and the label may be 0.

    A record without a label has the label UNKNOWN. To "skip" it, its pixels are None; to "refuse"
    it, RunFailed is raised. A label that is not a class raises RunFailed too.
    """
    path = f"{source.name}[{index}]"
    label: Label = 0
    try:
        record = source.read(index)
        path, label = record.path, record.label
        if isinstance(label, np.ndarray) or label != UNKNOWN or unlabelled == "read":
            return decode(record.data), label
        if unlabelled == "skip":
            return None, label
        raise unlabelled_image(path)
    except LabelError as error:
        raise RunFailed(str(error)) from error
    except (OSError, BrokenImageError) as error:
        if isinstance(error, OSError) and error.filename:
            path = str(error.filename)
        reason = getattr(error, "strerror", "") or str(error) or type(error).__name__
        bad.add(index, path=path, reason=" ".join(reason.split()))
        return None, label


def read_or_replace(
    source: Source,
    index: int,
    decode: Decode,
    *,
    sample_index: int,
    seed: int,
    bad: BadImages,
    labelled: bool,
) -> tuple[np.ndarray, Label, int]:
    """Pixels, label and index of a record; if it is broken, of one from a fixed random list."""
    unlabelled: Unlabelled = "refuse" if labelled else "read"
    pixels, label = read(source, index, decode, bad=bad, unlabelled=unlabelled)
    if pixels is not None:
        return pixels, label, index
    for index in replacements(sample_index, size=len(source), seed=seed):
        pixels, label = read(source, index, decode, bad=bad, unlabelled=unlabelled)
        if pixels is not None:
            return pixels, label, index
    raise all_broken(source.name)


def replacements(sample_index: int, *, size: int, seed: int) -> Iterator[int]:
    """The ids of the images that replace a broken one, in the order in which they are tried."""
    for number in draw("replacement", seed=seed, start=sample_index, count=1)[0]:
        yield int(number * size)


def all_broken(name: str) -> RunFailed:
    """What to raise if all `replacements` are broken; `name` is that of the source."""
    return RunFailed(f"{name}: {NUMBERS} images chosen at random are all broken")


def unlabelled_image(path: str) -> RunFailed:
    """What to raise for an image without a label, where every image must have one."""
    return RunFailed(f"{path} has no label ({UNKNOWN}): {TRAIN_ON_LABELLED}")
