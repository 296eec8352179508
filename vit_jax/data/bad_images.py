"""Counts the records that cannot be read, reports each once, and stops a run that has too many."""

import logging
import threading

from vit_jax.errors import RunFailed
from vit_jax.text import few, printable

_LOG = logging.getLogger(__name__)
NAMED = 3  # paths in the message that stops a run
REMEDY = (
    "to continue from the last checkpoint, run the same command with a larger"
    " --config.data.max_bad, or repair the images and add --config.data.accept_changes=true"
)


class Reported:
    """The images that a run has reported. Each is reported once, even if several splits hold it."""

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._lock = threading.Lock()

    def first(self, path: str) -> bool:
        with self._lock:
            new = path not in self._paths
            self._paths.add(path)
        return new


class BadImages:
    """The broken records that this process found in a source. Several threads share it."""

    def __init__(
        self,
        *,
        size: int,
        max_bad: float,
        reported: Reported | None = None,
        remedy: str = REMEDY,
    ) -> None:
        """`size`: number of records; more than `max_bad * size` broken ones stop the run."""
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
        """Reports a broken record once. Raises RunFailed if there are too many."""
        with self._lock:
            self._paths[index] = path
            count = len(self._paths)
        if self.reported.first(path):
            _LOG.warning("broken image %s: %s", printable(path), printable(reason))
        if count > self.max_bad * self.size:
            raise RunFailed(
                f"{count} of {self.size} images are broken, more than the allowed share"
                f" {self.max_bad:g}: {few(self.paths, NAMED)}; {self._remedy}"
            )
