"""Saving in the background: its errors are raised by the run, once, and leave nothing behind.

Orbax logs an error in every thread that it passes, asyncio in every task that was not awaited,
TensorStore prints what it cannot deliver any more: hundreds of lines for one full disk. The run
raises one of them; the others say the same.
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
import orbax.checkpoint as ocp

from vit_jax.errors import RunFailed

TEMPORARY = ".orbax-checkpoint-tmp"  # in the name of a folder that is not complete
PATIENCE = 60  # seconds for a thread to end
LOGGERS = ("absl", "asyncio")
SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")  # in what TensorStore says


class Saver:
    """Saves by a manager of Orbax, and raises RunFailed where that fails, in the background too."""

    def __init__(self, manager: ocp.CheckpointManager, *, listen: bool) -> None:
        self._manager, self._path = manager, manager.directory
        self._heard = _Heard()
        self._saving: int | None = None
        if listen:
            self._heard.start()

    def save(self, step: int, args: ocp.args.Composite, metrics: Mapping[str, float]) -> None:
        """Starts saving a step, when the one before is saved."""
        self.wait()
        if "://" not in os.fspath(self._path) and not self._path.is_dir():
            # Orbax would make it anew, and the rest of the run would be missing.
            raise RunFailed(f"checkpoint {step} was not saved: the folder {self._path} is gone")
        self._saving = step
        try:
            self._manager.save(step, args=args, metrics=dict(metrics) or None, force=True)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise self._failed(error) from error

    def check(self) -> None:
        """Raises RunFailed where the save in the background has failed."""
        if self._heard.errors or not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when all is saved."""
        if self._saving is None:
            return
        if self._heard.errors and jax.process_count() > 1:
            # The others wait for this process, and it for them: it has to leave.
            raise self._failed(self._heard.errors[0])
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error
        self._saving = None

    def close(self) -> None:
        """Waits for the background and ends it. Of a save that failed nothing is left."""
        failed: RunFailed | None = None
        try:
            if not self._heard.errors:
                self._manager.close()
                return
        except Exception as error:
            failed = self._failed(error)
        finally:
            self._heard.stop()
        if jax.process_count() == 1:  # else the others may never come to where they all meet
            self._clean_up()
        if failed:
            raise failed

    def _clean_up(self) -> None:
        for _ in range(2):  # Orbax raises an error once to each who waits
            with contextlib.suppress(Exception):
                self._manager.close()
        for thread in threading.enumerate():  # they go on when one of them has given up
            if type(thread).__module__.startswith("orbax."):
                threading.Thread.join(thread, PATIENCE)  # Orbax's own raises the error again
        with contextlib.suppress(OSError):
            for path in self._path.glob(f"*{TEMPORARY}*"):
                path.rmtree()

    def _failed(self, error: BaseException) -> RunFailed:
        first = (self._heard.errors or [error])[0]
        self._heard.errors.append(error)
        try:
            kept = [s for s in ocp.utils.checkpoint_steps(self._path) if s != self._saving]
        except OSError:
            kept = []
        is_kept = f"checkpoint {max(kept)} is kept" if kept else "no other checkpoint is there"
        return RunFailed(
            f"checkpoint {self._saving} could not be saved in {self._path}: {reason(first)};"
            f" {is_kept}: remove the cause and run the same command to go on"
        )


class _Heard(logging.Filter):
    """Collects errors that Orbax's threads log or leave, from `start` on."""

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
        """Undoes `start`, unless there were errors: what they leave is collected at exit only."""
        if self._before is None or self.errors:
            return
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self)
        sys.unraisablehook, threading.excepthook = self._before
        self._before = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno < logging.ERROR or error is None or not _of_orbax(error):
            return True
        self.errors.append(error)
        return False

    def _unraisable(self, told: Any) -> None:
        # TensorStore calls it where the loop that waited for a write has given up.
        closed = str(told.exc_value) == "Event loop is closed"
        if not (closed or (told.exc_value and _of_orbax(told.exc_value))):
            assert self._before is not None
            self._before[0](told)

    def _in_thread(self, told: Any) -> None:
        if told.exc_value and _of_orbax(told.exc_value):
            self.errors.append(told.exc_value)
        else:
            assert self._before is not None
            self._before[1](told)


def reason(error: BaseException) -> str:
    """What went wrong, in a few words: TensorStore names the system's error far behind."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if found := SYSTEM_ERROR.search(text):
        return os.strerror(int(found[1]))
    return text.split(" [source locations")[0][:300] or type(error).__name__


def _of_orbax(error: BaseException) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith("orbax.") for frame, _ in frames)
