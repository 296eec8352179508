"""Opens the split of a dataset that a config names."""

import logging

from vit_jax.config import DataConfig
from vit_jax.data import split_names
from vit_jax.data.arrays import EMBEDDED_SPLITS, ArraySource, open_embedded
from vit_jax.data.image_folder import ImageFolder, ImageFolderSource
from vit_jax.data.record import Record, Source
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
    """The split to learn from."""
    return open_source(data, split=data.train_split)


def open_eval(data: DataConfig) -> Source:
    """The split to measure on: `eval_split`, or the first held-out split that there is.

    An image folder without splits is evaluated as a whole, with a warning.
    """
    if data.eval_split:
        return open_source(data, split=data.eval_split)
    splits = available_splits(data)
    for split in split_names.held_out(splits):
        return open_source(data, split=split)
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
    if data.source == "embedded":
        return open_embedded(split)
    if data.source == "image_folder":
        return ImageFolder(data.path, train_split=data.train_split).open(split)
    return TfdsSource(data.name, split=split, data_dir=data.path)


def available_splits(data: DataConfig) -> tuple[str, ...]:
    if data.source == "embedded":
        return EMBEDDED_SPLITS
    if data.source == "image_folder":
        return ImageFolder(data.path, train_split=data.train_split).splits
    return tfds_splits(data.name, data_dir=data.path)
