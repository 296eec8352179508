"""Counts the records that cannot be read, reports each once, and stops a run that has too many."""

import logging
import threading

from vit_jax.errors import RunFailed
from vit_jax.text import few, printable

_LOG = logging.getLogger(__name__)
NAMED = 3  # paths in the message that stops a run
REMEDY = (
    "the run goes on from its last checkpoint by the same command with a larger"
    " --config.data.max_bad, or, once they are repaired, with --config.data.accept_changes=true"
)


class Reported:
    """What a run has reported: an image that several splits hold, or that is read again, once."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._lock = threading.Lock()

    def first(self, path: str) -> bool:
        with self._lock:
            new = path not in self._paths
            self._paths.add(path)
        return new


class BadImages:
    """The distinct broken records of a source, seen by this process. Used by many threads."""

    def __init__(
        self,
        *,
        size: int,
        max_bad: float,
        reported: Reported | None = None,
        remedy: str = REMEDY,
    ) -> None:
        """`size`: records in the source; more than `max_bad * size` broken ones are too many."""
        self.size = size
        self.max_bad = max_bad
        self.reported = reported or Reported()
        self._remedy = remedy
        self._paths: dict[int, str] = {}
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._paths.values())

    def add(self, index: int, *, path: str, reason: str) -> None:
        """Reports a record the first time it is seen. Raises RunFailed when it is one too many."""
        with self._lock:
            self._paths[index] = path
            count = len(self._paths)
        if self.reported.first(path):
            _LOG.warning("broken image %s: %s", printable(path), printable(reason))
        if count > self.max_bad * self.size:
            raise RunFailed(
                f"{count} of {self.size} images are broken, more than the share {self.max_bad:g}"
                f" that may be: {few(self.paths, NAMED)}; {self._remedy}"
            )
