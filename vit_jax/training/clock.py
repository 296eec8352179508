"""Where the time of a run goes that is not spent in training steps."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, get_args

Part = Literal["data", "compilation", "evaluations", "checkpoints"]


class Clock:
    """Sums the seconds of the parts of a run, on this process.

    The parts are: waiting for batches, the first call of a compiled step, evaluations, and
    checkpoints as far as the steps wait for them.
    """

    def __init__(self) -> None:
        self._seconds: dict[Part, float] = dict.fromkeys(get_args(Part), 0.0)
        self._since = (time.perf_counter(), 0.0)  # the time of `restart`, and the waiting until it

    @contextlib.contextmanager
    def of(self, part: Part) -> Iterator[None]:
        """Adds the time of the block to a part."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - begin

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each part, to a millisecond."""
        return {part: round(seconds, 3) for part, seconds in self._seconds.items()}

    def waiting(self) -> float:
        """The share of the time since the last call, or since `restart`, that waited for data."""
        begin, waited = self._since
        self.restart()
        now, total = self._since
        return min((total - waited) / max(now - begin, 1e-9), 1.0)

    def restart(self) -> None:
        """Excludes the time until now from the next share."""
        self._since = (time.perf_counter(), self._seconds["data"])
