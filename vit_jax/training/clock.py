"""The speed of a run, and where its time goes that is not spent in training steps."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

Part = Literal["data", "compilation", "evaluations", "checkpoints"]


class Speed(NamedTuple):
    """What a line of metrics says of the steps since the line before."""

    steps_per_second: float
    waiting: float  # share of the time that waited for data


class Clock:
    """Measures the speed of the steps, and sums the seconds of the parts of a run, on this process.

    The parts are: waiting for batches, the first call of a compiled step, evaluations, and
    checkpoints as far as the steps wait for them.
    """

    def __init__(self, *, step: int) -> None:
        self._seconds: dict[Part, float] = dict.fromkeys(get_args(Part), 0.0)
        self._since = self._read(step)

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

    def speed(self, step: int) -> Speed:
        """The speed until this step, since the last call or `restart`, without compilation."""
        then, begin, waited = self._since
        _, now, total = self._since = self._read(step)
        seconds = max(now - begin, 1e-9)
        return Speed((step - then) / seconds, min((total - waited) / seconds, 1.0))

    def restart(self, step: int) -> None:
        """Excludes the time until now, such as an evaluation, from the next `speed`."""
        self._since = self._read(step)

    def _read(self, step: int) -> tuple[int, float, float]:
        """The step, the time without compilation, and the seconds of waiting so far."""
        return step, time.perf_counter() - self._seconds["compilation"], self._seconds["data"]
