"""What a run writes of its metrics: JSON lines and TensorBoard events."""

import concurrent.futures
import contextlib
import errno
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
from etils import epath

from vit_jax.errors import RunFailed
from vit_jax.training.events import Events, shown, tag
from vit_jax.training.writers import Open
from vit_jax.workdir import lines as lines_lib
from vit_jax.workdir import place
from vit_jax.workdir.mirror import Changes, Mirror

UPLOAD_EVERY = 30.0  # seconds between uploads to a bucket; each checkpoint uploads too
LARGE = 2**18  # bytes; a file that is uploaded whole continues in a new file beyond this size
EVENTS = "tensorboard"


class MetricWriter:
    """Appends to `metrics.jsonl` and to TensorBoard events in the run's folder.

    Lines beyond `start_step` are dropped, because the resumed run writes them again; damaged lines
    are dropped too. Lost events are written again. `messages` notes this. On a bucket the lines
    since metrics.jsonl are in the files of `metrics/`. These files and the events are uploaded
    every `UPLOAD_EVERY` seconds and by `flush`. Only the primary process writes.

    Raises RunFailed if writing fails.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        start_step: int,
        others: Callable[[], Sequence[Open]] = tuple,
    ) -> None:
        """`others` opens the writers that get the same metrics, on the primary process only."""
        self.messages: tuple[str, ...] = ()
        self._last: list[lines_lib.Line] = []  # the lines of `start_step` that are there already
        self._primary = jax.process_index() == 0
        if not self._primary:
            return
        with contextlib.ExitStack() as stack, keeping(workdir, begins=True):
            self._mirror = stack.enter_context(Mirror(workdir))
            kept = self._keep(start_step)
            self._last = [line for line in kept if line["step"] == start_step]
            self._file = stack.enter_context(_LineFile(self._mirror))
            self._events = stack.enter_context(contextlib.closing(self._rebuilt(start_step, kept)))
            self._others = [stack.enter_context(contextlib.closing(one)) for one in others()]
            self._thread = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
            self._upload: concurrent.futures.Future[None] | None = None
            self._uploaded = -math.inf  # time of the last upload
            self._stack = stack.pop_all()

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._primary:
            return
        try:
            self.flush()
            with keeping(self._mirror.remote):
                self._stack.close()
                if self._mirror.uploads:
                    _merge(self._mirror.remote, lines_lib.read(self._mirror.remote).good)
        except RunFailed:
            with contextlib.suppress(OSError):  # the first error is reported
                self._stack.close()
            if kind is None:
                raise

    def has(self, step: int, names: Collection[str]) -> bool:
        """Whether a line of this step with exactly these names was there at the start."""
        wanted = {"step", *names}
        return any(line["step"] == step and line.keys() == wanted for line in self._last)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the line `{"step": ..., name: value}`, which is on disk when this returns.

        A value that is not finite is written as null.
        """
        if not self._primary:
            return
        with keeping(self._mirror.remote):
            self._file.write({"step": step, **metrics})
            self._events.write(step, metrics)
            for other in self._others:
                other.write(step, metrics)
        now = time.monotonic()
        if not self._mirror.uploads or now < self._uploaded + UPLOAD_EVERY:
            return
        if self._upload is None or self._upload.done():
            self._uploaded, changes = now, self._changes()
            self._upload = self._thread.submit(self._put, changes)

    def flush(self) -> None:
        """Returns when everything that was written is in the workdir.

        Called before a checkpoint, so that a run that resumes from it has lost no line.
        """
        if not self._primary:
            return
        with keeping(self._mirror.remote):
            if self._mirror.uploads:
                if self._upload:
                    self._upload.result()
                self._mirror.put(self._changes())
                self._uploaded = time.monotonic()
            for other in self._others:
                other.flush()

    def _keep(self, start_step: int) -> list[lines_lib.Line]:
        """Keeps only the intact lines up to `start_step` in metrics.jsonl, and returns them."""
        found = lines_lib.read(self._mirror.remote)
        if found.bad:
            count = "1 damaged line was" if found.bad == 1 else f"{found.bad} damaged lines were"
            self.messages += (f"{lines_lib.NAME}: {count} dropped",)
        kept = [line for line in found.good if line["step"] <= start_step]
        _merge(self._mirror.remote, kept)
        return kept

    def _rebuilt(self, start_step: int, kept: list[lines_lib.Line]) -> Events:
        """New events, with the numbers of the lines that the existing events do not show."""
        folder = self._mirror.remote / EVENTS
        files = sorted(folder.iterdir()) if folder.exists() else []
        files = [path for path in files if ".tfevents." in path.name and place.is_file(path)]
        there = shown(path.read_bytes() for path in files)
        events = Events(self._mirror.local / EVENTS, start_step=start_step, older=len(files))
        lost = 0
        for line in kept:
            step = line["step"]
            missing = {
                name: value
                for name, value in lines_lib.numbers(line).items()
                if (step, tag(name)) not in there
            }
            events.write(step, missing)
            there |= {(step, tag(name)) for name in missing}
            lost += len(missing)
        if lost:
            self.messages += (f"{EVENTS}/: {lost} numbers of {lines_lib.NAME} written again",)
        return events

    def _changes(self) -> Changes:
        changes = self._mirror.changes()
        self._file.next_file(larger_than=LARGE)
        self._events.next_file(larger_than=LARGE)
        return changes

    def _put(self, changes: Changes) -> None:
        """Uploads in the background. After an error the next upload has these changes too."""
        try:
            self._mirror.put(changes)
        except Exception as error:
            log = logging.getLogger(__name__)
            log.warning("%s: not uploaded, trying again: %s", self._mirror.remote, error)


class _LineFile:
    """The file metrics.jsonl, or the files of `metrics/` for a bucket."""

    def __init__(self, mirror: Mirror) -> None:
        self._folder, self._count = mirror.local / lines_lib.SEGMENTS, 0
        if mirror.uploads:
            self._folder.mkdir()
            self._open(self._folder / "000000.jsonl")
        else:
            self._open(mirror.local / lines_lib.NAME)

    def __enter__(self) -> "_LineFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: lines_lib.Line) -> None:
        self._file.write(lines_lib.to_bytes([line]))
        os.fsync(self._file.fileno())

    def next_file(self, *, larger_than: int) -> None:
        if self._file.tell() > larger_than:
            self._file.close()
            self._count += 1
            self._open(self._folder / f"{self._count:06d}.jsonl")

    def _open(self, path: pathlib.Path) -> None:
        self._file = path.open("ab", buffering=0)


def _merge(folder: epath.Path, lines: Sequence[lines_lib.Line]) -> None:
    """Writes these lines to metrics.jsonl, and removes the files of `metrics/`."""
    path, content = folder / lines_lib.NAME, lines_lib.to_bytes(lines)
    there = path.read_bytes() if path.exists() else b""
    if content != there:
        place.write_whole(path, content)
    for part in lines_lib.segments(folder):
        part.unlink()


@contextlib.contextmanager
def keeping(workdir: Any, *, begins: bool = False) -> Iterator[None]:
    """Turns an error of the disk or the bucket into a RunFailed, a ValueError if `begins`."""
    try:
        yield
    except (RunFailed, ValueError, KeyboardInterrupt):
        raise
    except Exception as error:  # the libraries of buckets raise many kinds
        if not isinstance(error, OSError) and not place.is_bucket(workdir):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:300]
        number = getattr(error, "errno", None)
        if begins and number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ValueError(f"cannot write to the workdir {workdir}: {reason}") from error
        raise RunFailed(
            f"the metrics of the run cannot be written to {workdir}: {reason}: repair this, then"
            " run the same command to continue from the last checkpoint"
        ) from error
