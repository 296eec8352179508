"""Batches as pure functions of (seed, step), decoded ahead by threads.

The element of the Grain dataset is "this host's rows of the global batch of step s". Which images
they are and how they are cut follows from the seed and the place of each sample in the run alone,
so the step is all there is to save: a resume is exact on any number of hosts and threads.
"""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Literal

import cv2
import grain
import numpy as np

from vit_jax.data.arrays import ArraySource
from vit_jax.data.bad_images import BadImages
from vit_jax.data.counter import NUMBERS, draw, shuffled_ids
from vit_jax.data.preprocess import BrokenImageError, EvalTransform, TrainTransform
from vit_jax.data.record import TRAIN_ON_LABELLED, UNKNOWN, LabelError, Source
from vit_jax.errors import Interrupted, RunFailed

POLL = 0.2  # seconds between two questions whether to go on waiting

# The arrays of a batch that can go to the devices.
TRAIN_ARRAYS = ("image", "label", "sample_index")
EVAL_ARRAYS = (*TRAIN_ARRAYS, "mask")

Batch = dict[str, np.ndarray]
Decode = Callable[[bytes | np.ndarray], np.ndarray]
Unlabelled = Literal["refuse", "skip", "read"]  # what to do with an image that has no label


def example_shapes(
    image_size: tuple[int, int], channels: int
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of one example in each of `EVAL_ARRAYS`."""
    return {
        "image": ((*image_size, channels), "uint8"),
        "label": ((), "int32"),
        "sample_index": ((2,), "uint32"),
        "mask": ((), "bool"),
    }


def train_batches(
    source: Source,
    transform: TrainTransform,
    *,
    seed: int,
    batch_size: int,
    num_steps: int,
    start_step: int = 0,
    rows: slice | None = None,
    threads: int = 8,
    prefetch: int = 2,
    max_bad: float = 0.001,
    bad: BadImages | None = None,
    labelled: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
) -> "Batches":
    """The batches of steps `start_step`, ..., `num_steps - 1` of an endless shuffled stream.

    `batch_size` is global, `rows` this host's part of it (unset: all). Epochs follow each other
    without a gap, each another permutation of the source. A batch holds, R being its rows:
    image uint8 (R, H, W, C), label int32 (R,), id int64 (R,) index in the source, and
    sample_index uint32 (R, 2), the high and low word of `step * batch_size + row`.

    A broken image is replaced by a random one that depends on its sample index only, and given to
    `bad`. Unless `labelled`, an image need not have a label: it is UNKNOWN then. `next` raises what
    a thread raises, such as the RunFailed of too many broken images, and Interrupted where the next
    batch is not ready and `interrupted()` holds.
    """
    bad = bad or BadImages(size=len(source), max_bad=max_bad)
    rows = rows or slice(0, batch_size)
    pool = _Pool(threads)

    def batch(step: int) -> Batch:
        start = step * batch_size + rows.start
        indices = np.arange(start, start + rows.stop - rows.start)
        ids = shuffled_ids(indices, size=len(source), seed=seed)
        numbers = draw("crop", seed=seed, start=start, count=len(ids))
        words = _words(indices)
        if isinstance(source, ArraySource):
            image = transform.batch(source.gather(ids, channels=transform.channels), numbers)
            return {"image": image, "label": source.labels[ids], "id": ids, "sample_index": words}
        image = np.empty((len(ids), *transform.size, transform.channels), np.uint8)
        label = np.empty(len(ids), np.int32)

        def load(row: int) -> None:
            pixels, label[row], ids[row] = _read_or_replace(
                source,
                int(ids[row]),
                transform.decode,
                sample_index=start + row,
                seed=seed,
                bad=bad,
                labelled=labelled,
            )
            image[row] = transform(pixels, numbers[row])

        pool.run(load, len(ids))
        return {"image": image, "label": label, "id": ids, "sample_index": words}

    return Batches(
        batch,
        start=start_step,
        stop=num_steps,
        pool=pool,
        prefetch=prefetch,
        bad=bad,
        interrupted=interrupted,
    )


def eval_batches(
    source: Source,
    transform: EvalTransform,
    *,
    batch_size: int,
    rows: slice | None = None,
    threads: int = 8,
    prefetch: int = 2,
    max_bad: float = 0.001,
    bad: BadImages | None = None,
    labelled: bool = True,
    interrupted: Callable[[], bool] = lambda: False,
) -> "Batches":
    """Every example once, in order, in batches of the full size.

    As `train_batches`, with `mask` bool (R,), and the id as sample_index. The mask is False where
    the last batch is padded (image 0, label 0, id -1), where an image is broken (its label and id,
    image 0), and, if `labelled`, where it has no label (label -1, its id, image 0).
    Every host gets the same number of batches.
    """
    bad = bad or BadImages(size=len(source), max_bad=max_bad)
    rows = rows or slice(0, batch_size)
    pool = _Pool(threads)

    def batch(step: int) -> Batch:
        ids = np.arange(step * batch_size + rows.start, step * batch_size + rows.stop)
        mask = ids < len(source)
        ids[~mask] = -1
        image = np.zeros((len(ids), *transform.size, transform.channels), np.uint8)
        label = np.zeros(len(ids), np.int32)

        def load(row: int) -> None:
            pixels, label[row] = _read(
                source,
                int(ids[row]),
                transform.decode,
                bad=bad,
                unlabelled="skip" if labelled else "read",
            )
            mask[row] = pixels is not None
            if pixels is not None:
                image[row] = transform(pixels)

        pool.run(load, int(mask.sum()))
        words = _words(ids)
        return {"image": image, "label": label, "id": ids, "sample_index": words, "mask": mask}

    steps = -(-len(source) // batch_size)
    return Batches(
        batch,
        start=0,
        stop=steps,
        pool=pool,
        prefetch=prefetch,
        bad=bad,
        interrupted=interrupted,
    )


class Batches(Iterator[Batch]):
    """Batches made ahead by threads. Close it, or use it in `with`, to end them early."""

    def __init__(
        self,
        batch: Callable[[int], Batch],
        *,
        start: int,
        stop: int,
        pool: "_Pool",
        prefetch: int,
        bad: BadImages,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.bad = bad
        self._interrupted = interrupted
        self._pool = pool
        self._closed = False
        # Grain's threads only hand a batch's images to the pool and wait: one for each batch
        # ahead, so that the pool has the next batch to go on with when one runs out.
        options = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
        steps = grain.MapDataset.source(_Steps(batch, stop))[start:]
        self._iterator = iter(steps.to_iter_dataset(options))
        # Grain's `next` costs 0.3 ms of Python: not on the thread that dispatches the steps.
        self._feeder = concurrent.futures.ThreadPoolExecutor(1, "feeder")
        self._next = self._feeder.submit(next, self._iterator, None)

    def __next__(self) -> Batch:
        """The next batch. Raises Interrupted where it is not ready and `interrupted` says so."""
        if self._closed:
            raise StopIteration
        try:
            batch = self._wait()
            if batch is None:
                raise StopIteration
            self._next = self._feeder.submit(next, self._iterator, None)
            return batch
        except StopIteration:
            self.close()
            raise
        except BaseException:  # a thread's error, an interrupt: nothing comes after it
            self.close(wait=False)
            raise

    def _wait(self) -> Batch | None:
        """Asks now and then whether to go on waiting: a read may block for ever."""
        while True:
            try:
                return self._next.result(timeout=POLL)
            except TimeoutError:
                if self._next.done():  # it is the thread's own
                    raise
                if self._interrupted():
                    raise Interrupted("the next images are not ready") from None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(wait=error is None)

    def close(self, *, wait: bool = True) -> None:
        """Ends the threads. After an error do not wait: one may be in a read that blocks."""
        if not self._closed:
            self._closed = True
            self._iterator.close()
            self._pool.close(wait=wait)
            self._feeder.shutdown(wait=wait, cancel_futures=True)


class _Steps:
    """The source that Grain reads: element `s` is the batch of step `s`."""

    def __init__(self, batch: Callable[[int], Batch], length: int) -> None:
        self._batch = batch
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        return self._batch(step)


class _Pool:
    """The threads that decode, shared by the batches in preparation."""

    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(1)  # its own threads, of the whole process, would multiply ours
        self._threads = threads
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, "decode")

    def run(self, task: Callable[[int], None], count: int) -> None:
        """`task(0)`, ..., `task(count - 1)`, in a few pieces a thread; raises what they raise."""
        size = max(1, count // (4 * self._threads))
        pieces = [range(first, min(first + size, count)) for first in range(0, count, size)]
        for future in [self._executor.submit(_for_each, task, piece) for piece in pieces]:
            future.result()

    def close(self, *, wait: bool) -> None:
        self._executor.shutdown(wait=wait, cancel_futures=True)


def _words(indices: np.ndarray) -> np.ndarray:
    """int64 (R,) as uint32 (R, 2), the high and the low word: JAX has 32 bits by default."""
    return np.stack([indices >> 32, indices & 0xFFFFFFFF], axis=-1).astype(np.uint32)


def _for_each(task: Callable[[int], None], rows: range) -> None:
    for row in rows:
        task(row)


def _read_or_replace(
    source: Source,
    index: int,
    decode: Decode,
    *,
    sample_index: int,
    seed: int,
    bad: BadImages,
    labelled: bool,
) -> tuple[np.ndarray, int, int]:
    """Pixels, label and index of a record, or of the first readable one of a fixed random list."""
    unlabelled: Unlabelled = "refuse" if labelled else "read"
    pixels, label = _read(source, index, decode, bad=bad, unlabelled=unlabelled)
    if pixels is not None:
        return pixels, label, index
    for number in draw("replacement", seed=seed, start=sample_index, count=1)[0]:
        index = int(number * len(source))
        pixels, label = _read(source, index, decode, bad=bad, unlabelled=unlabelled)
        if pixels is not None:
            return pixels, label, index
    raise RunFailed(f"{source.name}: {NUMBERS} images chosen at random are all broken")


def _read(
    source: Source, index: int, decode: Decode, *, bad: BadImages, unlabelled: Unlabelled
) -> tuple[np.ndarray | None, int]:
    """Pixels and label of a record; no pixels where it is broken, label 0 where unreadable.

    A record without a label has the label UNKNOWN, and no pixels to "skip" it. Raises RunFailed
    for one to "refuse", and for a label that is no class.
    """
    path, label = f"{source.name}[{index}]", 0
    try:
        record = source.read(index)
        path, label = record.path, record.label
        if label != UNKNOWN or unlabelled == "read":
            return decode(record.data), label
        if unlabelled == "skip":
            return None, label
        raise RunFailed(f"{path} has no label ({UNKNOWN}): {TRAIN_ON_LABELLED}")
    except LabelError as error:
        raise RunFailed(str(error)) from error
    except (OSError, BrokenImageError) as error:
        if isinstance(error, OSError) and error.filename:
            path = str(error.filename)
        reason = getattr(error, "strerror", "") or str(error) or type(error).__name__
        bad.add(index, path=path, reason=" ".join(reason.split()))
        return None, label
