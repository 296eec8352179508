"""JAX's cache of compiled programs: on by default, in a folder of the user's caches.

The variables of JAX itself change it: JAX_COMPILATION_CACHE_DIR names another folder or a bucket,
and JAX_ENABLE_COMPILATION_CACHE=false turns it off.
"""

import contextlib
import hashlib
import os
import pathlib
import platform
import sys
import time
from collections.abc import Mapping, MutableMapping

LARGEST = 2**31  # bytes of the folder
OLDEST = 30 * 24 * 3600.0  # seconds; a file that a killed process left incomplete goes too
SHORTEST = 0.1  # seconds; a program that compiles faster is not kept
FOLDER, SHORTEST_SETTING = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def keep_programs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets the variables that JAX reads when it is imported, unless the user set them.

    Without a folder that only this user can write to, programs are not kept.
    """
    off = environment.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("0", "false", "no", "off")
    if off or FOLDER in environment:
        return
    with contextlib.suppress(OSError, RuntimeError):  # a read-only home, or none
        folder = caches(environment) / "vit_jax" / "programs" / _machine()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK) or not _is_private(folder):
            return
        trim(folder)
        environment[FOLDER] = str(folder)
        environment.setdefault(SHORTEST_SETTING, str(SHORTEST))


def trim(folder: pathlib.Path, *, largest: int = LARGEST, oldest: float = OLDEST) -> None:
    """Removes old files, then the oldest ones until `largest` bytes are left.

    JAX can limit the size too, but then every program that it adds costs a look at all the others,
    and a process that is killed while it writes can end the adding for good.
    """
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process removed it
            if path.is_file():
                files.append((path.stat().st_mtime, path.stat().st_size, path))
    size, now = 0, time.time()
    for changed, length, path in sorted(files, reverse=True):
        size += length
        if size > largest or changed < now - oldest:
            with contextlib.suppress(OSError):
                path.unlink()


def caches(environment: Mapping[str, str] = os.environ) -> pathlib.Path:
    """The folder of the user's caches. Raises RuntimeError if the user has no home."""
    if named := environment.get("XDG_CACHE_HOME"):
        return pathlib.Path(named)
    below = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return pathlib.Path.home() / below


def _is_private(folder: pathlib.Path) -> bool:
    """Whether no other user can write to a folder: JAX runs what it finds there."""
    found = folder.stat()
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _machine() -> str:
    """A name of the processor: a program for the CPU may not run on another one.

    Machines may share a home.
    """
    features = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        # The first processor's lines are enough: a large machine has hundreds.
        features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
