"""Batches of features that were computed once, in the order in which a run sees the images.

Shapes: N images of a source, R rows of a batch.
"""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.data import pipeline, reading
from vit_jax.data.batches import Batch, Batches, Pool

NAME = "features"  # of the array in a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Features of all images of a source, in its order."""

    values: np.ndarray  # float32 (N, ...); 0 where the image cannot be read
    labels: np.ndarray  # int32 (N,), or uint8 (N, K) if images have several
    readable: np.ndarray  # bool (N,)


def train_batches(features: Features, *, seed: int, **how: Any) -> Batches:
    """The batches of `pipeline.train_batches`, with features float32 (R, ...) instead of images.

    `how` are the other arguments of `pipeline.stream`. A broken image is replaced by the same image
    as there.
    """

    def make(step: int, ids: np.ndarray, at: np.ndarray) -> Batch:
        for row in np.flatnonzero(~features.readable[ids]):
            ids[row] = _replacement(features, int(at[row]), seed=seed)
        return {NAME: features.values[ids], "label": features.labels[ids]}

    return pipeline.stream(make, pool=Pool(1), **how)


def _replacement(features: Features, sample_index: int, *, seed: int) -> int:
    others = reading.replacements(sample_index, size=len(features.readable), seed=seed)
    for index in others:
        if features.readable[index]:
            return index
    raise reading.all_broken("the training split")
