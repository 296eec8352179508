"""Random numbers and shuffled ids as pure functions of (seed, sample index).

The sample index counts the samples of the whole run: `step * batch_size + row`. It needs no state,
and does not depend on processes, threads or the step at which a run was resumed.
"""

import functools
from collections.abc import Sequence

import numpy as np

NUMBERS = 40  # random numbers per sample; a multiple of 4, the size of a Philox block


def draw(stream: str, *, seed: int, start: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for the samples `start`, ..., `start + count - 1`.

    Returns float64 (count, NUMBERS). Philox encrypts a counter, so the numbers of a sample do not
    depend on `start` and `count`. `stream` names an independent sequence of numbers.
    """
    generator = np.random.Philox(key=_key(stream, seed), counter=start * (NUMBERS // 4))
    return np.random.Generator(generator).random((count, NUMBERS))


def draw_at(stream: str, indices: np.ndarray, *, seed: int) -> np.ndarray:
    """What `draw` gives for the samples with these indices (R,): float64 (R, NUMBERS)."""
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return np.concatenate([draw(stream, seed=seed, start=int(r[0]), count=len(r)) for r in runs])


def shuffled_ids(indices: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """The dataset id of each sample index, int64; every epoch is a different permutation.

    An epoch is `size` indices; a batch may hold the end of one and the start of the next.
    """
    epochs, places = np.divmod(indices, size)
    seeds = [_epoch_seed(seed, epoch) for epoch in epochs.tolist()]
    return shuffled(places.tolist(), sizes=[size] * len(seeds), seeds=seeds)


def shuffled(places: Sequence[int], *, sizes: Sequence[int], seeds: Sequence[int]) -> np.ndarray:
    """Where each place goes in the permutation of its size by its uint32 seed, int64."""
    import grain.experimental  # slow to import, and needed where data is read only

    shuffle = grain.experimental.index_shuffle
    found = [
        shuffle(place, max_index=size - 1, seed=seed, rounds=4)
        for place, size, seed in zip(places, sizes, seeds, strict=True)
    ]
    return np.array(found, np.int64)


@functools.lru_cache(maxsize=64)
def _key(stream: str, seed: int) -> np.ndarray:
    sequence = np.random.SeedSequence([seed % 2**64, *stream.encode()])
    return sequence.generate_state(2, np.uint64)


@functools.lru_cache(maxsize=64)
def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint32)[0])
