"""What the launchers share: parsing the command line, and running other programs."""

import argparse
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Sequence

from vit_jax.__main__ import Parser as Parser
from vit_jax.__main__ import parsed


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, list[str]]:
    """Returns the launcher's flags, given before the first `--`, and the job, given after it."""
    own, job = list(argv), []
    if "--" in own:
        split = own.index("--")
        own, job = own[:split], own[split + 1 :]
    flags = parser.parse_args(own)
    if not job:
        parser.error("no job: give it after --, such as: -- train --config configs/quickstart.py")
    return flags, job


def check_job(job: Sequence[str], *, root: pathlib.Path) -> str:
    """Returns the path of the job's recipe, "" without one; the job will run in the folder `root`.

    Ends the launcher as `parsed` does if vit_jax would refuse the arguments. Raises ValueError if
    there is no recipe at the path.
    """
    options, _ = parsed(job)
    recipe, _, _ = (getattr(options, "config", None) or "").partition(":")
    if recipe and not (root / recipe).is_file():
        raise ValueError(f"no recipe at {recipe} in {root}: paths of a job are relative to it")
    return recipe


def execute(argv: Sequence[str], *, text: str | None = None) -> int:
    """Runs a program to its end, with `text` as its input; returns its exit code.

    Raises ValueError if it is not installed.
    """
    check_installed(argv[0])
    return subprocess.run(argv, input=text, text=True, check=False).returncode


def check_installed(program: str) -> None:
    """Raises ValueError if a program is not on PATH."""
    if shutil.which(program) is None:
        raise ValueError(
            f"{program} is not installed or not on PATH: install it, or use --dry-run to see"
            " what would run"
        )


def make_folder(path: pathlib.Path) -> None:
    """Creates a folder and its parents. Raises ValueError if that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path} cannot be created: {error.strerror or error}") from error


def at_least(smallest: int) -> Callable[[str], int]:
    """An argparse type: an integer that is at least `smallest`."""

    def integer(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {smallest}")
        return int(text)

    return integer


def one_line(text: str) -> str:
    """An argparse type: text of one line, which is safe to write into a line of a script."""
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not one line of text")
    return text
