"""Opens the splits that a config names: one to learn from, one to measure on."""

import logging

from vit_jax.data import split_names
from vit_jax.data.options import DataConfig
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, Source

_LOG = logging.getLogger(__name__)


def open_train(data: DataConfig, *, labelled: bool = True) -> Source:
    """The split to learn from. Raises ValueError where labels are needed and it has none."""
    source = open_source(data, split=data.train_split)
    if not labelled:
        return source
    if unlabelled := _unlabelled(source):
        raise ValueError(
            f"{source.name}: {unlabelled} images have no label ({UNKNOWN}): {TRAIN_ON_LABELLED}"
        )
    return source


def open_eval(data: DataConfig, *, labelled: bool = True) -> Source:
    """The split to measure on: `eval_split`, or the first held-out split that there is.

    A split without labels is not taken where they are needed. A dataset that has none to evaluate
    on, but one called "all", is evaluated as a whole, with a warning.
    """
    if data.eval_split:
        source = open_source(data, split=data.eval_split)
        if not labelled or _has_labels(source):
            return source
        raise ValueError(
            f"{source.name} has no labels: set config.data.eval_split to another split"
        )
    splits = data.source.splits(train_split=data.train_split)
    for split in split_names.held_out(splits):
        source = open_source(data, split=split)
        if not labelled or _has_labels(source):
            return source
    if "all" in splits:
        _LOG.warning(
            "%s has no split to evaluate on (folders train/, val/): evaluating on all its images",
            data.source.label,
        )
        return open_source(data, split="all")
    raise ValueError(
        f"{data.source.label} has no labelled split that is called as one to evaluate on"
        f" (validation, val, test): set config.data.eval_split; there are {', '.join(splits)}"
    )


def open_source(data: DataConfig, *, split: str) -> Source:
    """Raises ValueError in one line where the dataset, or its split, cannot be opened."""
    source = data.source.open(split, train_split=data.train_split)
    if not len(source):
        raise ValueError(f"{source.name} holds no images: choose another split")
    return source


def _unlabelled(source: Source) -> str:
    """How many images have no label, in words; "" where those looked at all have one."""
    labels = source.sample()
    count = labels.count(UNKNOWN)
    return f"{count} of {len(labels)}" if count else ""


def _has_labels(source: Source) -> bool:
    return set(source.sample()) != {UNKNOWN}
