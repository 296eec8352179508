"""Batches of features that were computed once, in the order in which a run sees the images.

Shapes: N images of a source, R rows of a batch.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from vit_jax.data import pipeline
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batch, Batches, Pool
from vit_jax.data.sampling import Order

NAME = "features"  # of the array in a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Features of all images of a source, in its order."""

    values: np.ndarray  # float32 (N, ...); 0 where the image cannot be read
    labels: np.ndarray  # int32 (N,), or uint8 (N, K) if images have several
    readable: np.ndarray  # bool (N,)


def train_batches(
    features: Features,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    start_step: int,
    rows: slice | np.ndarray,
    order: Order,
    repeats: int,
    prefetch: int,
    bad: BadImages,
    tables: Mapping[str, np.ndarray] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Batches:
    """The batches of `pipeline.train_batches`, with features float32 (R, ...) instead of images.

    A broken image is replaced by the same image as there.
    """

    def batch(step: int) -> Batch:
        indices = pipeline.indices_of(step, batch_size, rows)
        ids = order(indices // repeats)
        for row in np.flatnonzero(~features.readable[ids]):
            ids[row] = _replacement(features, int(indices[row]), seed=seed)
        looked_up = {name: table[ids] for name, table in (tables or {}).items()}
        return {
            NAME: features.values[ids],
            "label": features.labels[ids],
            "id": ids,
            "sample_index": pipeline.words_of(indices),
        } | looked_up

    return Batches(
        batch,
        start=start_step,
        stop=num_steps,
        pool=Pool(1),
        prefetch=prefetch,
        bad=bad,
        interrupted=interrupted,
    )


def _replacement(features: Features, sample_index: int, *, seed: int) -> int:
    others = pipeline.replacements(sample_index, size=len(features.readable), seed=seed)
    for index in others:
        if features.readable[index]:
            return index
    raise pipeline.all_broken("the training split")
