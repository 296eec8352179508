"""The lease that a training run holds on its workdir, so that only one run writes there.

`lease.json` in the workdir names the holder (host, process, start time) and has a number that a
thread of the holder changes every few seconds. This works on a local or shared file system and in a
bucket, and hosts need no common clock. A process that wants the workdir

- gets it where there is no lease;
- is refused where the holder is a living process on this host, or changes the number meanwhile;
- takes over the lease where the holder is a dead process on this host, or does not change the
  number for `EXPIRES` seconds.

If several processes try to take over a lease, exactly one succeeds: the one that creates a file
named after the lease's content. A holder that was paused for a long time finds the lease of another
process, before it saves again at the latest, and ends.
"""

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from vit_jax.checkpoints import exclusive, processes
from vit_jax.errors import RunFailed

NAME = "lease.json"
BEAT = 5.0  # seconds between two renewals
EXPIRES = 60.0  # seconds without a renewal after which another process may take over the lease
LATE = 60.0  # seconds until a network file system shows a new file, at most
POLL = 0.5  # seconds between two looks at a lease that may expire


class Lease:
    """A lease that this process holds; a thread renews it until `release`."""

    def __init__(self, workdir: str, folder: exclusive.Folder) -> None:
        self._workdir, self._folder = workdir, folder
        self._nonce, self._beat, self._lost = uuid.uuid4().hex, 0, ""
        self._process = processes.identity()
        self._since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._confirmed = processes.clock()  # when the file last named this process
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def content(self) -> bytes:
        """The current content of lease.json."""
        holder = {"process": self._process, "since": self._since, "nonce": self._nonce}
        fields = holder | {"beat": self._beat}
        return (json.dumps(fields, indent=2) + "\n").encode()

    def start(self) -> "Lease":
        self._confirmed = processes.clock()
        self._thread.start()
        return self

    def check(self, *, now: bool = False) -> None:
        """Raises RunFailed where this process has lost the lease.

        Reads the file if `now` is set or the last look is older than three beats, otherwise it is
        free.
        """
        if not self._lost and (now or processes.clock() - self._confirmed > 3 * BEAT):
            with self._lock, contextlib.suppress(OSError):  # an unreachable file is no loss
                if not self._ended.is_set():
                    self._confirm()
        if self._ended.is_set():
            # A signal ends this process at once and has released the lease, so that nothing may be
            # written any more. Wait for that end: it prints why.
            time.sleep(2 * BEAT)
            raise RunFailed(self._message("it was released"))
        if self._lost:
            raise RunFailed(self._lost)

    def release(self) -> None:
        """Ends the lease and removes its file, unless the file names another process."""
        if self._ended.is_set():
            return
        self._ended.set()
        if not self._lock.acquire(timeout=BEAT):
            return  # the file system hangs: the lease will expire without us
        try:
            with contextlib.suppress(OSError):
                if self._confirm():
                    self._folder.remove(NAME)
        finally:
            self._lock.release()

    def _renew(self) -> None:
        while not self._ended.wait(BEAT) and not self._lost:
            with self._lock, contextlib.suppress(OSError):  # such as a full disk: try again later
                if not self._ended.is_set() and self._confirm():
                    began = processes.clock()
                    self._beat += 1
                    self._folder.replace(NAME, self.content())
                    if processes.clock() - began > EXPIRES / 2:
                        # Paused between reading and writing: another process may have taken
                        # the lease meanwhile. It will find ours in its place, so both end.
                        self._lost = self._message("this process was paused for too long")

    def _confirm(self) -> bool:
        """Whether the file still names this process."""
        found = self._folder.read(NAME)
        if found is None:
            self._lost = self._message(f"its {NAME} is gone, or the whole folder")
        elif _nonce(found) != self._nonce:
            self._lost = self._message(f"{_holder(_parse(found))} took it over")
        else:
            self._confirmed = processes.clock()
        return not self._lost

    def _message(self, reason: str) -> str:
        return (
            f"this process has lost the workdir {self._workdir}: {reason}. Nothing more is"
            " written; the checkpoints that were saved are kept"
        )


@contextlib.contextmanager
def hold(
    workdir: str | os.PathLike[str], *, say: Callable[[str], None] = lambda text: None
) -> Iterator[Lease]:
    """Holds the lease of `workdir`; makes the folder where it is missing.

    `say` is called with a message if it has to wait. Raises ValueError where another process holds
    the lease, or where the folder cannot be written to; then nothing is left behind.
    """
    made = _missing(workdir)
    try:
        try:
            exclusive.folder(workdir).make()
            lease = acquire(workdir, say=say)
        except OSError as error:
            raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error
        try:
            yield lease
        finally:
            lease.release()
    finally:
        for path in made:  # removes only empty folders
            with contextlib.suppress(OSError):
                path.rmdir()


def seen(workdir: str | os.PathLike[str]) -> str:
    """An identifier of the lease in `workdir`; "" where there is none for `LATE` seconds.

    Processes that see the same lease share one folder, even if its path differs between hosts.
    """
    folder, deadline = exclusive.folder(workdir), processes.clock() + LATE
    while True:
        with contextlib.suppress(OSError):
            if nonce := _nonce(folder.read(NAME)):
                return nonce[:8]
        if processes.clock() > deadline:
            return ""
        time.sleep(POLL)


def acquire(workdir: str | os.PathLike[str], *, say: Callable[[str], None]) -> Lease:
    """Takes the lease of an existing folder and starts to renew it. Raises errors as `hold`."""
    folder = exclusive.folder(workdir)
    lease = Lease(os.fspath(workdir), folder)
    theirs, claim, announced = _Seen(), _Seen(), False
    while True:
        theirs.look(folder, NAME)
        if theirs.content is None:
            if folder.create(NAME, lease.content()):
                return lease.start()
        else:
            holder = _parse(theirs.content)
            alive = processes.alive(holder.get("process"))
            if alive or theirs.renewed:
                raise ValueError(
                    f"the workdir {workdir} is in use: {_holder(holder)} trains in it; wait for its"
                    " end, stop it, or use another --workdir"
                )
            if alive is False or theirs.unchanged() > EXPIRES:
                if _take_over(folder, theirs.content, lease, claim):
                    return lease.start()
            elif not announced:
                announced = True
                say(
                    f"the workdir {workdir} is held by {_holder(holder)}, which may run on another"
                    f" host: waiting up to {EXPIRES:.0f} s to see whether it is alive"
                )
        time.sleep(POLL)


class _Seen:
    """A file's last content, and for how long this process has seen it unchanged."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.renewed = False  # whether the same holder has written it again
        self._since = processes.clock()

    def look(self, folder: exclusive.Folder, name: str) -> None:
        found = folder.read(name)
        if found != self.content:
            both = self.content is not None and found is not None
            self.renewed = both and _nonce(found) == _nonce(self.content) != ""
            self.content, self._since = found, processes.clock()

    def unchanged(self) -> float:
        """Seconds since the content was first seen."""
        return processes.clock() - self._since


def _take_over(folder: exclusive.Folder, theirs: bytes, lease: Lease, seen: _Seen) -> bool:
    """Replaces the lease of a dead process; returns False if another process is doing it."""
    claim = f".lease-{hashlib.sha256(theirs).hexdigest()[:16]}"
    if not folder.create(claim, lease.content()):
        seen.look(folder, claim)
        dead = processes.alive(_parse(seen.content).get("process")) is False
        if dead or seen.unchanged() > EXPIRES:  # the other process died while taking over
            folder.remove(claim)
        return False
    try:
        if folder.read(NAME) != theirs:
            return False
        folder.replace(NAME, lease.content())
        return True
    finally:
        folder.remove(claim)


def _parse(content: bytes | None) -> dict[str, Any]:
    """The fields of a lease; {} where it is damaged."""
    try:
        fields = json.loads(content or b"")
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _nonce(content: bytes | None) -> str:
    nonce = _parse(content).get("nonce")
    return nonce if isinstance(nonce, str) else ""


def _holder(holder: dict[str, Any]) -> str:
    """`process PID on HOST (since TIME, N min ago)`; the fields may be of any type."""
    process = holder.get("process")
    process = process if isinstance(process, dict) else {}
    host = process.get("host")
    host = host[0] if isinstance(host, list) and host else "an unknown host"
    text = f"process {process.get('pid', 'unknown')} on {host}"[:200]
    text = "".join(c if c.isprintable() else "?" for c in text)
    try:
        since = datetime.datetime.fromisoformat(str(holder.get("since")))
        age = datetime.datetime.now(datetime.UTC) - since
    except (ValueError, TypeError):
        return text
    seconds = max(round(age.total_seconds()), 0)
    passed = f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
    return f"{text} (since {since:%Y-%m-%d %H:%M:%S} UTC, {passed} ago)"


def _missing(workdir: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The local folders that have to be made for `workdir`, the innermost first."""
    path = pathlib.Path(workdir)
    return (
        [] if "://" in os.fspath(workdir) else [p for p in (path, *path.parents) if not p.exists()]
    )
