"""Measures the CPU-seconds until a command does something, against importing JAX alone.

    python benchmarks/startup.py [--rounds 5]

CPU-seconds of all threads hardly depend on what else the machine does. The first training step is
that of configs/quickstart.py: the process is killed when its numbers are on disk.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[1]
VIT_JAX = ["-m", "vit_jax"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = pathlib.Path(folder, "programs")
        rows: dict[str, Callable[[], float]] = {
            "`import jax`": lambda: cpu_seconds("-c", "import jax"),
            "`import` of everything that trains": lambda: cpu_seconds(
                "-c", "import vit_jax.training.loop"
            ),
            "`vit_jax --help`": lambda: cpu_seconds(*VIT_JAX, "--help"),
            "`vit_jax train`, an error": lambda: cpu_seconds(*VIT_JAX, "train"),
            "first step, nothing compiled before": lambda: first_step(folder, cache=None),
            "first step, with the cache of programs": lambda: first_step(folder, cache=cache),
        }
        first_step(folder, cache=cache)  # fills the cache
        found: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(flags.rounds):
            for name, measure in rows.items():
                found[name].append(measure())
    print("| | CPU-seconds, median | least |")
    print("|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} |")


def cpu_seconds(*arguments: str) -> float:
    """CPU-seconds of a Python process from its start to its end."""
    return ended(start(arguments, environment={}))


def first_step(folder: str, *, cache: pathlib.Path | None) -> float:
    """CPU-seconds until the loss of the first training step is known."""
    workdir = pathlib.Path(tempfile.mkdtemp(dir=folder))
    environment = (
        {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        if cache
        else {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    )
    recipe = ROOT / "configs" / "quickstart.py"
    arguments = [*VIT_JAX, "train", "--config", str(recipe), "--workdir", str(workdir)]
    child = start([*arguments, "--config.log_every.steps=1"], environment=environment)
    lines = workdir / "metrics.jsonl"
    while child.poll() is None and not (lines.exists() and lines.stat().st_size):
        time.sleep(0.005)
    child.kill()
    return ended(child)


def start(
    arguments: list[str] | tuple[str, ...], *, environment: dict[str, str]
) -> subprocess.Popen:
    shortest = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}  # as `vit_jax` sets it
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | shortest | environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def ended(child: subprocess.Popen) -> float:
    """Waits for a process and returns its CPU-seconds."""
    _, _, used = os.wait4(child.pid, 0)
    child.returncode = 0  # `wait4` has taken the exit code
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
