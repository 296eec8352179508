"""A profile of a few steps of a run, for TensorBoard or Perfetto."""

import os

import jax

from vit_jax.workdir.mirror import Mirror

PROFILED = (10, 15)  # the first and the last recorded step, counted from the start of this process


class Trace:
    """Records a few steps into the folder `profile/` of the run. Use as a context manager."""

    def __init__(self, workdir: str | os.PathLike[str], start: int, total: int) -> None:
        """Records the steps `PROFILED`, or the last ones if `start + 1` to `total` are too few."""
        self._mirror, self._recording = Mirror(workdir), False
        length = PROFILED[1] - PROFILED[0] + 1
        self._first = max(min(start + PROFILED[0], total + 1 - length), start + 1)
        self._end = self._first + length

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_: object) -> None:
        with self._mirror:
            self._stop()

    def before(self, step: int) -> None:
        """Starts or stops recording; called before each step."""
        if step == self._first:
            jax.profiler.start_trace(str(self._mirror.local / "profile"))
            self._recording = True
        elif step == self._end:
            self._stop()

    def _stop(self) -> None:
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
            self._mirror.put(self._mirror.changes())
