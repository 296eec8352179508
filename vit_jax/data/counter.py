"""Random numbers and shuffled ids as pure functions of (seed, sample index).

The sample index is the place of a sample in the whole run, `step * batch_size + row`: it needs no
state, and does not depend on hosts, threads or the step a run was resumed at.
"""

import functools

import grain.experimental
import numpy as np

NUMBERS = 40  # random numbers of a sample, a multiple of the 4 of one Philox block


def draw(stream: str, *, seed: int, start: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1) of the samples `start`, ..., `start + count - 1`.

    float64 (count, NUMBERS). Philox is a block cipher of a counter, so the numbers of a range of
    indices are those of its indices one by one. `stream` names an independent sequence.
    """
    generator = np.random.Philox(key=_key(stream, seed), counter=start * (NUMBERS // 4))
    return np.random.Generator(generator).random((count, NUMBERS))


def shuffled_ids(indices: np.ndarray, *, size: int, seed: int) -> np.ndarray:
    """The dataset id of each sample index, int64: every epoch is another permutation.

    An epoch is `size` indices; a batch may hold the end of one and the start of the next.
    """
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
