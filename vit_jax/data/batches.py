"""Batches made ahead by threads, with Grain."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator

import numpy as np

from vit_jax.data.bad_images import BadImages
from vit_jax.errors import NotReady

POLL = 0.2  # seconds between two calls of `interrupted`

Batch = dict[str, np.ndarray]


class Batches(Iterator[Batch]):
    """Batches made ahead by threads. Close it, or use it in `with`, to end the threads early."""

    def __init__(
        self,
        batch: Callable[[int], Batch],
        *,
        start: int,
        stop: int,
        pool: "Pool",
        prefetch: int,
        bad: BadImages,
        interrupted: Callable[[float], bool] = lambda waited: False,
    ) -> None:
        """`interrupted` gets the seconds of a wait for a batch so far: whether to stop waiting."""
        self.bad = bad
        self._interrupted = interrupted
        self._pool = pool
        self._closed = False
        import grain  # slow to import, and needed where data is read only

        # A thread of Grain only gives a batch's images to the pool and waits. There is one for each
        # batch ahead, so that the pool has work when a batch is nearly complete.
        options = grain.ReadOptions(num_threads=prefetch, prefetch_buffer_size=prefetch)
        steps = grain.MapDataset.source(_Steps(batch, stop))[start:]
        self._iterator = iter(steps.to_iter_dataset(options))
        # Grain's `next` costs 0.3 ms of Python: keep it off the thread that dispatches steps.
        self._feeder = concurrent.futures.ThreadPoolExecutor(1, "feeder")
        self._next = self._feeder.submit(next, self._iterator, None)

    def __next__(self) -> Batch:
        """The next batch.

        Raises NotReady if it is not ready and `interrupted` returns True, and what a thread raised,
        such as RunFailed for too many broken images.
        """
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
        except BaseException:  # an error of a thread, or an interrupt: no batch follows
            self.close(wait=False)
            raise

    def _wait(self) -> Batch | None:
        """The next batch, or None. Asks `interrupted` meanwhile: a read may block forever."""
        began = time.monotonic()
        while True:
            try:
                return self._next.result(timeout=POLL)
            except TimeoutError:
                if self._next.done():  # the thread raised it
                    raise
                if self._interrupted(time.monotonic() - began):
                    raise NotReady from None

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(wait=error is None)

    def close(self, *, wait: bool = True) -> None:
        """Ends the threads. After an error, do not wait: a thread may be blocked in a read."""
        if not self._closed:
            self._closed = True
            self._iterator.close()
            self._pool.close(wait=wait)
            self._feeder.shutdown(wait=wait, cancel_futures=True)


class _Steps:
    """The data source that Grain reads: element `s` is the batch of step `s`."""

    def __init__(self, batch: Callable[[int], Batch], length: int) -> None:
        self._batch = batch
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, step: int) -> Batch:
        return self._batch(step)


class Pool:
    """The threads that decode, shared by all batches in preparation."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._executor = concurrent.futures.ThreadPoolExecutor(threads, "decode")

    def run(self, task: Callable[[int], None], count: int) -> None:
        """Calls `task(0)` to `task(count - 1)`; raises what they raise."""
        # A few pieces a thread: large enough to cost little, small enough to share the work evenly.
        size = max(1, count // (4 * self._threads))
        pieces = [range(first, min(first + size, count)) for first in range(0, count, size)]
        for future in [self._executor.submit(_for_each, task, piece) for piece in pieces]:
            future.result()

    def close(self, *, wait: bool) -> None:
        self._executor.shutdown(wait=wait, cancel_futures=True)


def _for_each(task: Callable[[int], None], rows: range) -> None:
    for row in rows:
        task(row)
