"""Records the sessions of a run in sessions.json."""

import contextlib
import datetime
import os
import uuid
from collections.abc import Mapping

import jax

from vit_jax.checkpoints import run_folder
from vit_jax.parallel import machine
from vit_jax.training.clock import Clock
from vit_jax.workdir import sessions


class Session:
    """Records a session when it begins and when it ends. Only the primary process writes.

    A session that was killed has no end.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        step: int,
        command: str,
        mesh: Mapping[str, int],
        clock: Clock,
    ) -> None:
        """`step` is the step that it continues from, and `command` can be typed in a shell.

        At its end, the seconds of `clock` are recorded.
        """
        self._workdir, self._primary, self._clock = workdir, jax.process_index() == 0, clock
        self._own: sessions.Session = {"id": uuid.uuid4().hex}
        if self._primary:
            self._own |= {
                "began": _now(),
                "step": step,
                "command": command,
                "mesh": dict(mesh),
                "machine": machine.facts(),
            }
            # A run that begins anew replaces a run that saved nothing.
            before = sessions.read(workdir) if step else []
            self._write([*before, self._own])

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # the libraries of buckets raise many kinds
            self.end()

    def end(self) -> None:
        """Records that the session ends now, unless that is recorded already."""
        if not self._primary or "ended" in self._own:
            return
        self._own |= {"ended": _now(), "seconds": self._clock.seconds}
        known = sessions.read(self._workdir)
        if known and known[-1].get("id") == self._own["id"]:  # else another process trains there
            self._write([*known[:-1], self._own])

    def _write(self, all_of_them: list[sessions.Session]) -> None:
        run_folder.write_json(self._workdir, sessions.FILE, {"sessions": all_of_them})


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
