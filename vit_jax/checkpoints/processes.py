"""The identity of a process, and whether the process of an identity still runs."""

import os
import pathlib
import platform
import subprocess
import time
from typing import Any

_PROC = pathlib.Path("/proc")


def clock() -> float:
    """Seconds of a monotonic clock, which also counts while the machine sleeps (on Linux)."""
    counted = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if counted is None else time.clock_gettime(counted)


def identity() -> dict[str, Any]:
    """What distinguishes this process from every other, as JSON values."""
    return {"host": _host(), "pid": os.getpid(), "start": _state(os.getpid())[1]}


def alive(process: Any) -> bool | None:
    """Whether the process of an `identity` runs; None where this process cannot know it.

    That is so for a process on another host or in another container, and for a paused one.
    """
    if not isinstance(process, dict) or process.get("host") != _host():
        return None
    pid = process.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31:
        return None
    state, start = _state(pid)
    if not start or state in "ZX":  # a zombie has ended, but its parent has not collected it
        return False
    if start != process.get("start"):
        return False
    return None if state in "Tt" else True


def _host() -> list[str]:
    """Identifies the machine since its last boot, and the container: the scope of a pid."""
    parts = [platform.node()]
    for path in (_PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())
        except OSError:
            parts.append("")
    return parts


def _state(pid: int) -> tuple[str, str]:
    """The letter of a process's state and its start time; ("", "") where there is no process."""
    if _PROC.is_dir():
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            return "", ""
        fields = text.rpartition(")")[2].split()  # the name in parentheses may hold any character
        return fields[0], fields[19]
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, start = found.strip().partition(" ")
    return state[:1], start.strip()
