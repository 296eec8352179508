"""Opens the splits that a config names: one to train on, one to evaluate on."""

import logging

from vit_jax.data import split_names
from vit_jax.data.options import DataConfig
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, Source
from vit_jax.data.subset import of_each_class

_LOG = logging.getLogger(__name__)


def open_train(data: DataConfig, *, labelled: bool = True) -> Source:
    """The split to train on, or `data.per_class` images of each class of it.

    Raises ValueError if labels are needed and images have none.
    """
    source = open_source(data, split=data.train_split)
    if not labelled and not data.per_class:
        return source
    if unlabelled := _unlabelled(source):
        raise ValueError(
            f"{source.name}: {unlabelled} images have no label ({UNKNOWN}): {TRAIN_ON_LABELLED}"
        )
    return of_each_class(source, data.per_class)


def open_eval(data: DataConfig, *, labelled: bool = True) -> Source:
    """The split to evaluate on: `eval_split`, or the first held-out split.

    If labels are needed, splits without labels are skipped. If there is no held-out split, but a
    split named "all", the evaluation is on all images, with a warning.
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
        f"{data.source.label} has no labelled split that is named like an evaluation split"
        f" (validation, val, test): set config.data.eval_split; there are {', '.join(splits)}"
    )


def open_source(data: DataConfig, *, split: str) -> Source:
    """One split. Raises ValueError in one line if the dataset or the split cannot be opened."""
    source = data.source.open(split, train_split=data.train_split)
    if not len(source):
        raise ValueError(f"{source.name} holds no images: choose another split")
    return source


def _unlabelled(source: Source) -> str:
    """How many of the sampled images have no label, in words; "" if all have one."""
    labels = source.sample()
    count = labels.count(UNKNOWN)
    return f"{count} of {len(labels)}" if count else ""


def _has_labels(source: Source) -> bool:
    return set(source.sample()) != {UNKNOWN}
