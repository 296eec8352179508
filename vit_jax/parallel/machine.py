"""Facts about the machine of a run or a benchmark."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Mapping
from typing import Any

import jax

from vit_jax.parallel.chips import CHIPS
from vit_jax.parallel.gpus import GPUS

# Figures of machines that differ in one of these cannot be compared.
SAME = ("platform", "device_kind", "devices", "processes", "host_cores", "processor")
_LIBRARIES = ("vit_jax", "jax", "jaxlib", "libtpu", "flax", "numpy")
_BUSY = 0.5  # processes per core that are worth a note
_PEAKS = {chip.kind: chip.peak for chip in CHIPS} | {gpu.kind: gpu.peak for gpu in GPUS}


def facts() -> dict[str, Any]:
    """The devices, the host and the versions, as plain values."""
    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "host_cores": host_cores(),
        "processor": _processor(),
        "load": _load(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **_versions()},
    }


def described(machine: Mapping[str, Any]) -> str:
    """The machine in one line."""
    kind = machine["device_kind"]
    devices = f"{machine['devices']} x {kind}" if machine["devices"] > 1 else kind
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items() if found)
    return f"{devices}, {machine['host_cores']} cores of {machine['processor']}; {versions}"


def busy(machine: Mapping[str, Any]) -> list[str]:
    """A note if other processes used the machine before the measurement began."""
    load, cores = machine["load"], machine["host_cores"]
    if load < _BUSY * cores:
        return []
    return [
        f"the machine was shared: {load:.1f} processes wanted its {cores} cores in the minute"
        " before the measurement"
    ]


def host_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_flops(kind: str) -> float:
    """The bfloat16 FLOP/s of a device of this kind; 0: unknown."""
    return _PEAKS.get(kind, 0.0)


def device_memory() -> int:
    """The most bytes that a device of this process held; 0: the platform does not say it."""
    found = [device.memory_stats() or {} for device in jax.local_devices()]
    return max(stats.get("peak_bytes_in_use", 0) for stats in found)


def process_memory() -> int:
    """The most bytes that this process held, its compiler included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _load() -> float:
    """The processes that wanted to run, averaged over the last minute; 0: not known."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def _versions() -> dict[str, str]:
    found = dict.fromkeys(_LIBRARIES, "")
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
