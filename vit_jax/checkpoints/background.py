"""Saving in the background: a failed save raises one error in the run and leaves no partial files.

For one full disk, Orbax logs the error in every thread that it passes, asyncio logs it for every
task that was not awaited, and TensorStore prints the errors that it could not deliver: hundreds of
lines. The run raises the first error only; the rest repeat it.
"""

import contextlib
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any

import jax

from vit_jax.checkpoints import orbax
from vit_jax.checkpoints.orbax import ocp
from vit_jax.errors import RunFailed

TEMPORARY = ".orbax-checkpoint-tmp"  # part of the name of a folder that is not complete
JOIN_TIMEOUT = 60  # seconds to wait for a thread to end
LOGGERS = ("absl", "asyncio")
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")  # in TensorStore's messages


class Saver:
    """Saves with an Orbax manager; raises RunFailed where a save fails, in the background too."""

    def __init__(self, manager: "ocp.CheckpointManager", *, listen: bool) -> None:
        self._manager, self._path = manager, manager.directory
        self._collector = _ErrorCollector()
        self._saving: int | None = None
        if listen:
            self._collector.start()

    def save(self, step: int, args: "ocp.args.Composite", metrics: Mapping[str, float]) -> None:
        """Waits until the previous step is saved, then starts saving this one."""
        self.wait()
        if "://" not in os.fspath(self._path) and not self._path.is_dir():
            # Orbax would create the folder again, but without the rest of the run.
            raise RunFailed(f"checkpoint {step} was not saved: the folder {self._path} is gone")
        self._saving = step
        try:
            self._manager.save(step, args=args, metrics=dict(metrics) or None, force=True)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise self._failed(error) from error

    def check(self) -> None:
        """Raises RunFailed where the save in the background has failed."""
        if self._collector.errors or not self._manager.is_saving_in_progress():
            self.wait()

    @property
    def is_saving(self) -> bool:
        return self._saving is not None and self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Waits until everything is saved. Raises RunFailed where a save has failed."""
        if self._saving is None:
            return
        if self._collector.errors and jax.process_count() > 1:
            # All processes would wait for each other for ever: this one has to end.
            raise self._failed(self._collector.errors[0])
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        self._saving = None

    def close(self) -> None:
        """Waits for the last save and ends the threads. Removes the files of a failed save."""
        failed: RunFailed | None = None
        try:
            if not self._collector.errors:
                self._manager.close()
                return
        except Exception as error:
            failed = self._failed(error)
        finally:
            self._collector.stop()
        if jax.process_count() == 1:  # with more, one process may never reach Orbax's barrier
            self._clean_up()
        if failed:
            raise failed

    def _clean_up(self) -> None:
        for _ in range(2):  # Orbax raises an error once for each waiting object
            with contextlib.suppress(Exception):
                self._manager.close()
        for thread in threading.enumerate():  # Orbax's threads go on after one of them has failed
            if type(thread).__module__.startswith("orbax."):
                # Orbax's own `join` would raise the error again.
                threading.Thread.join(thread, JOIN_TIMEOUT)
        with contextlib.suppress(OSError):
            for path in self._path.glob(f"*{TEMPORARY}*"):
                path.rmtree()

    def _failed(self, error: BaseException) -> RunFailed:
        first = (self._collector.errors or [error])[0]
        self._collector.errors.append(error)
        try:
            kept = [s for s in orbax.steps(self._path) if s != self._saving]
        except OSError:
            kept = []
        is_kept = f"checkpoint {max(kept)} is kept" if kept else "there is no other checkpoint"
        return RunFailed(
            f"checkpoint {self._saving} could not be saved in {self._path}: {reason(first)};"
            f" {is_kept}: remove the cause and run the same command to go on"
        )


class _ErrorCollector(logging.Filter):
    """Collects the errors that Orbax's threads log or do not catch, between `start` and `stop`."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self._before: tuple[Any, Any] | None = None

    def start(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self)
        self._before = (sys.unraisablehook, threading.excepthook)
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._in_thread

    def stop(self) -> None:
        """Undoes `start`, unless there were errors: more of them may follow until the exit."""
        if self._before is None or self.errors:
            return
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)
        sys.unraisablehook, threading.excepthook = self._before
        self._before = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno < logging.ERROR or error is None or not _is_from_orbax(error):
            return True
        self.errors.append(error)
        return False

    def _unraisable(self, args: Any) -> None:
        # TensorStore raises this where the event loop that waited for a write has ended.
        closed = str(args.exc_value) == "Event loop is closed"
        if not (closed or (args.exc_value and _is_from_orbax(args.exc_value))):
            assert self._before is not None
            self._before[0](args)

    def _in_thread(self, args: Any) -> None:
        if args.exc_value and _is_from_orbax(args.exc_value):
            self.errors.append(args.exc_value)
        else:
            assert self._before is not None
            self._before[1](args)


def reason(error: BaseException) -> str:
    """The cause of an error in a few words; TensorStore's long texts hold the system's error."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if found := SYSTEM_ERROR.search(text):
        return os.strerror(int(found[1]))
    return text.split(" [source locations")[0][:300] or type(error).__name__


def _is_from_orbax(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("orbax.") for frame, _ in frames)
