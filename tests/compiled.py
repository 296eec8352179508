"""Compiled programs are kept on disk between runs of the tests, but not for ever in memory."""

import ctypes
import gc
import os
import pathlib
import shutil
import sys

import jax

FOLDER = pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"
LARGEST = 2**30  # bytes: a cache that has grown beyond begins anew
SETTINGS = {
    "JAX_COMPILATION_CACHE_DIR": str(FOLDER),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def keep_programs() -> None:
    """Sets up JAX's cache for this process and those that it starts.

    A cache that the environment names is used as it is. JAX's own limit of size is not: with it,
    every program that is added costs a look at all the others (0.2 s for 3,500 of them). Without
    its lock, a process may read what another one is writing: JAX warns and compiles, and the
    warning is ignored (pyproject.toml, `cli.VIT_JAX`).
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # of a worker of pytest-xdist too
        return
    if sum(path.stat().st_size for path in FOLDER.glob("*")) > LARGEST:
        shutil.rmtree(FOLDER)
    os.environ.update(SETTINGS)
    jax.config.update("jax_compilation_cache_dir", str(FOLDER))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def forget(*, above: int) -> None:
    """Frees the programs in memory where this process holds more than so many bytes.

    A program that is needed again is read from disk. What is free goes back to the system: else
    the allocator would keep it.
    """
    if resident() < above:
        return
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say so."""
    path = pathlib.Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0
