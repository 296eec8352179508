"""Counts the records that cannot be read, reports each once, and stops a run that has too many."""

import logging
import threading

_LOG = logging.getLogger(__name__)
NAMED = 3  # paths in the message that stops a run


class BadImages:
    """The distinct broken records of a source, seen by this process. Used by many threads."""

    def __init__(self, *, size: int, max_bad: float) -> None:
        """`size`: records in the source; more than `max_bad * size` broken ones are too many."""
        self.size = size
        self.max_bad = max_bad
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
        """Reports a record the first time it is seen. Raises ValueError when it is one too many."""
        with self._lock:
            new = index not in self._paths
            self._paths[index] = path
            count = len(self._paths)
        if new:
            _LOG.warning("broken image %s: %s", path, reason)
        if count > self.max_bad * self.size:
            names = ", ".join(self.paths[:NAMED]) + (", ..." if count > NAMED else "")
            raise ValueError(
                f"{count} of {self.size} images are broken, more than config.data.max_bad"
                f" {self.max_bad:g} allows: {names}; repair or remove them, or raise max_bad"
            )
