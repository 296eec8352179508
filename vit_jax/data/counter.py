"""Random numbers and shuffled ids as pure functions of (seed, sample index).

The sample index counts the samples of the whole run: `step * batch_size + row`. It needs no state,
and does not depend on processes, threads or the step at which a run was resumed.
"""

import functools

import numpy as np

NUMBERS = 40  # random numbers per sample; a multiple of 4, the size of a Philox block


def draw(stream: str, *, seed: int, start: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for the samples `start`, ..., `start + count - 1`.

    Returns float64 (count, NUMBERS). Philox encrypts a counter, so the numbers of a sample do not
    depend on `start` and `count`. `stream` names an independent sequence of numbers.
    """
    generator = np.random.Philox(key=_key(stream, seed), counter=start * (NUMBERS // 4))
    return np.random.Generator(generator).random((count, NUMBERS))


def shuffled_ids(indices: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """The dataset id of each sample index, int64; every epoch is a different permutation.

    An epoch is `size` indices; a batch may hold the end of one and the start of the next.
    """
    import grain.experimental  # slow to import, and needed where data is read only

    ids = np.empty(len(indices), np.int64)
    for row, sample_index in enumerate(indices.tolist()):
        epoch, index = divmod(sample_index, size)
        ids[row] = grain.experimental.index_shuffle(
            index, max_index=size - 1, seed=_epoch_seed(seed, epoch), rounds=4
        )
    return ids


@functools.lru_cache(maxsize=64)
def _key(stream: str, seed: int) -> np.ndarray:
    sequence = np.random.SeedSequence([seed % 2**64, *stream.encode()])
    return sequence.generate_state(2, np.uint64)


@functools.lru_cache(maxsize=64)
def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed % 2**64, epoch]).generate_state(1, np.uint32)[0])
