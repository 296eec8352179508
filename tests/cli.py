"""The command line as a user calls it: in this process, or as a process of its own."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch import local
from tests import patience, runs
from tests.patience import limit
from vit_jax.__main__ import main

# See `compiled.keep_programs` for what is ignored.
PYTHON = (
    *(sys.executable, "-W", "error"),
    *("-W", "ignore:Error reading persistent compilation cache entry"),
)
VIT_JAX = (*PYTHON, "-m", "vit_jax")
LIMIT = 180  # seconds that any one process may take on an idle machine: give it to `limit`


def run(*arguments: object) -> int:
    """Runs `vit_jax ARGUMENTS` in this process and returns its exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as ended:  # argparse raises it
        return int(ended.code or 0)


def train(recipe: pathlib.Path, workdir: pathlib.Path | str, *overrides: str) -> int:
    """Runs `vit_jax train` in this process and returns its exit code."""
    return run("train", "--config", recipe, "--workdir", workdir, *overrides)


def start(
    *arguments: object,
    program: Sequence[str] = VIT_JAX,
    devices: int = 1,
    settings: Mapping[str, str] | None = None,
    cwd: pathlib.Path = runs.ROOT,
) -> "subprocess.Popen[str]":
    """Starts a program in a process of its own, with these environment variables."""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    } | dict(settings or {})
    return subprocess.Popen(
        [*program, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def process(
    *arguments: object, stdin: str = "", seconds: float = LIMIT, **how: Any
) -> "subprocess.CompletedProcess[str]":
    """Runs a program to its end: returncode, stdout, stderr. One that hangs is killed."""
    with start(*arguments, **how) as child:
        return _ended(child, stdin=stdin, seconds=seconds)


def two_processes(program: str, *, devices: int) -> "list[subprocess.CompletedProcess[str]]":
    """Runs a Python program in two processes of one job, with so many devices each."""
    port = local._free_port()
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                start(
                    program=(*PYTHON, "-c", program),
                    settings=local._environment({}, index, 2, port, devices),
                )
            )
            for index in range(2)
        ]
        for child in children:
            stack.callback(child.kill)
        return [_ended(child) for child in children]


def _ended(
    child: "subprocess.Popen[str]", *, stdin: str = "", seconds: float = LIMIT
) -> "subprocess.CompletedProcess[str]":
    try:
        output, errors = child.communicate(stdin, timeout=limit(seconds))
    finally:
        child.kill()
    return subprocess.CompletedProcess(child.args, child.returncode, output, errors)


def wait_until(condition: Callable[[], bool], child: "subprocess.Popen[str]") -> None:
    """Waits until the condition holds; the process must not end before."""

    def holds() -> bool:
        if condition():
            return True
        assert child.poll() is None, f"ended: {child.communicate()}"
        return False

    patience.wait_until(holds, seconds=LIMIT, pause=0.005)


class CommandLine:
    """A folder for runs of the tiny recipe, which processes of their own train."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.recipe = folder, runs.write_recipe(folder)

    def train(self, workdir: pathlib.Path | str, *overrides: str) -> list[str]:
        """The arguments of `train`, for `run`, `start`, `process` or a launcher."""
        return ["train", "--config", str(self.recipe), "--workdir", str(workdir), *overrides]
