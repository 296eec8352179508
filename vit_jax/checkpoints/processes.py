"""Which process this is, and whether another one that said so of itself still runs."""

import os
import pathlib
import platform
import subprocess
import time
from typing import Any

_PROC = pathlib.Path("/proc")


def clock() -> float:
    """Seconds that pass while the machine sleeps too, where the system counts them."""
    counted = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if counted is None else time.clock_gettime(counted)


def identity() -> dict[str, Any]:
    """What tells this process from every other: JSON values."""
    return {"host": _host(), "pid": os.getpid(), "start": _state(os.getpid())[1]}


def alive(process: Any) -> bool | None:
    """Whether the process of an `identity` runs; None where that cannot be seen from here.

    It cannot where the process is on another host or in another container, or is paused.
    """
    if not isinstance(process, dict) or process.get("host") != _host():
        return None
    pid = process.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31:
        return None
    state, start = _state(pid)
    if not start or state in "ZX":  # a zombie has ended: its parent has not looked yet
        return False
    if start != process.get("start"):
        return False
    return None if state in "Tt" else True


def _host() -> list[str]:
    """The machine since its last start, and the container: process numbers mean the same."""
    parts = [platform.node()]
    for path in (_PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())
        except OSError:
            parts.append("")
    return parts


def _state(pid: int) -> tuple[str, str]:
    """The state's letter and the time of the start; two empty texts where there is none."""
    if _PROC.is_dir():
        try:
            text = (_PROC / str(pid) / "stat").read_text()
        except OSError:
            return "", ""
        fields = text.rpartition(")")[2].split()  # the name before it may hold anything
        return fields[0], fields[19]
    command = ["ps", "-o", "state=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    state, _, start = found.strip().partition(" ")
    return state[:1], start.strip()
