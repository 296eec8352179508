"""Opens the split of a dataset that a config names."""

import logging

from vit_jax.config import DataConfig
from vit_jax.data import split_names
from vit_jax.data.arrays import EMBEDDED_SPLITS, ArraySource, open_embedded
from vit_jax.data.image_folder import ImageFolder, ImageFolderSource
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, Record, Source
from vit_jax.data.tfds_source import TfdsSource, tfds_splits

__all__ = [
    "ArraySource",
    "ImageFolderSource",
    "Record",
    "Source",
    "TfdsSource",
    "open_eval",
    "open_source",
    "open_train",
]

_LOG = logging.getLogger(__name__)


def open_train(data: DataConfig) -> Source:
    """The split to learn from. Raises ValueError where its images have no labels."""
    source = open_source(data, split=data.train_split)
    if unlabelled := _unlabelled(source):
        raise ValueError(
            f"{source.name}: {unlabelled} images have no label ({UNKNOWN}): {TRAIN_ON_LABELLED}"
        )
    return source


def open_eval(data: DataConfig) -> Source:
    """The split to measure on: `eval_split`, or the first held-out split that there is.

    A split without labels is not taken. An image folder without splits is evaluated as a whole,
    with a warning.
    """
    if data.eval_split:
        source = open_source(data, split=data.eval_split)
        if _has_labels(source):
            return source
        raise ValueError(
            f"{source.name} has no labels: set config.data.eval_split to another split"
        )
    splits = available_splits(data)
    for split in split_names.held_out(splits):
        if _has_labels(source := open_source(data, split=split)):
            return source
    if data.source == "image_folder" and "all" in splits:
        _LOG.warning(
            "%s has no folder for evaluation (train/ and val/): evaluating on all its images",
            data.path,
        )
        return open_source(data, split="all")
    raise ValueError(
        f"{data.name or data.path} has no labelled split that is called as one to evaluate on"
        f" (validation, val, test): set config.data.eval_split; there are {', '.join(splits)}"
    )


def open_source(data: DataConfig, *, split: str) -> Source:
    """Raises ValueError in one line where the dataset, or its split, cannot be opened."""
    source = _open(data, split)
    if not len(source):
        raise ValueError(f"{source.name} holds no images: choose another split")
    return source


def _open(data: DataConfig, split: str) -> Source:
    if data.source == "embedded":
        return open_embedded(split)
    if data.source == "image_folder":
        return ImageFolder(data.path, train_split=data.train_split).open(split)
    return TfdsSource(data.name, split=split, data_dir=data.path)


def _unlabelled(source: Source) -> str:
    """How many images have no label, in words; "" where those looked at all have one."""
    labels = source.sample() if isinstance(source, TfdsSource) else []
    count = labels.count(UNKNOWN)
    return f"{count} of {len(labels)}" if count else ""


def _has_labels(source: Source) -> bool:
    return not isinstance(source, TfdsSource) or set(source.sample()) != {UNKNOWN}


def available_splits(data: DataConfig) -> tuple[str, ...]:
    if data.source == "embedded":
        return EMBEDDED_SPLITS
    if data.source == "image_folder":
        return ImageFolder(data.path, train_split=data.train_split).splits
    return tfds_splits(data.name, data_dir=data.path)
