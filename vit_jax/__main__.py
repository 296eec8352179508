"""The command line: `python -m vit_jax COMMAND`, or `vit_jax COMMAND`."""

import argparse
import dataclasses
import gc
import importlib.util
import inspect
import io
import os
import pathlib
import re
import shlex
import sys
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

# `main` imports the rest, after signal handlers are installed. What takes long to import (JAX, and
# all that uses it) is imported by the command that runs: `--help` is answered at once.
from vit_jax import __version__, errors, program_cache, stopping
from vit_jax.text import printable

ERROR = 1  # the run failed
BAD_INPUT = 2  # the input is wrong; nothing was changed
LONGEST = 4000  # the most characters of an error line
# New objects after which Python looks for garbage. At its 700, the imports and the tracing of a
# model, whose objects stay, take 0.5 s more.
COLLECT_EVERY = 100_000


def program() -> None:
    """The command line as a process, which handles signals as described in `stopping`."""
    if sys.argv[1:2] == ["train"]:
        stopping.ends_at_once("interrupted before the first step: nothing to save")
    stopping.install()
    gc.set_threshold(COLLECT_EVERY)
    repeat_on_gpus()
    stopping.leave(main())


def repeat_on_gpus() -> None:
    """Makes XLA compute the same bits in every run on GPUs, unless XLA_FLAGS decides it already.

    By default runs differ, so a resumed run would differ from an uninterrupted one: docs/gpu.md.
    XLA then does not try which way of computing a matrix product is the fastest, and the products
    of cuBLAS are faster untried than those that XLA writes in Triton.
    """
    flags, name = os.environ.get("XLA_FLAGS", ""), "xla_gpu_deterministic_ops"
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin")
    if name in flags or not any(map(importlib.util.find_spec, plugins)):
        return
    added = [f"--{name}=true"]
    if "xla_gpu_enable_triton_gemm" not in flags:
        added.append("--xla_gpu_enable_triton_gemm=false")
    os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *added])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, or `ERROR` or `BAD_INPUT` with one error line.

    After a signal it is 128 plus the signal's number: 130 for Ctrl-C, 143 for SIGTERM.
    """
    import absl.logging

    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal's encoding may lack some letters
        sys.stdout.reconfigure(errors="backslashreplace")
    options, overrides = parsed(arguments)
    if options.command != "train":
        stopping.raises()
    if "jax" not in sys.modules:  # else the program that called this decides
        program_cache.keep_programs()
    # Orbax logs its ordinary work as warnings; Pillow warns of parts of a file that it ignores.
    absl.logging.set_verbosity(absl.logging.ERROR)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return options.run(options, overrides)
    except errors.Stopped as stop:
        return _fail(f"{stop}{'' if _in_a_job() else _command(arguments)}", stop.code)
    except errors.RunFailed as error:
        return _leave(_fail(error, ERROR))
    except BrokenPipeError:  # the reader of stdout, such as `head`, ended
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (takes the rest of the output)
        return ERROR
    except (KeyboardInterrupt, errors.Interrupted) as interrupt:
        return _fail(str(interrupt) or "interrupted", stopping.exit_code())
    except Exception as error:
        # A ValueError that this package or a guest raised is about the input: one line. An error
        # that a library raised is a bug here, and needs its traceback.
        bad_input = isinstance(error, ValueError) and _raised_by_us(error)
        if bad_input and not os.environ.get("VIT_JAX_TRACEBACK"):
            return _leave(_fail(error, BAD_INPUT))
        if _in_a_job():
            if _lost_another(error):
                _fail(
                    f"another process of this job ended ({str(error).splitlines()[0][:200]}):"
                    " start the job again to continue from its last checkpoint",
                    ERROR,
                )
            else:
                traceback.print_exc()
            _leave(ERROR)
        raise


def parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command, and the overrides of its config, such as `--config.seed=1`.

    Ends the process with one line and the code `BAD_INPUT` if the arguments are wrong.
    """
    parser = _parser(arguments)
    if (empty := _empty(arguments)) is not None:
        parser.error(f"{empty} has an empty value: a variable of the shell may be unset")
    options, rest = parser.parse_known_args(arguments)
    overrides = [a for a in rest if a.startswith(("--config.", "--noconfig."))]
    if unknown := [a for a in rest if a not in overrides]:
        parser.error(f"unknown arguments: {' '.join(unknown)}")
    if overrides and "config_overrides" not in options:
        parser.error(f"{options.command} takes no {overrides[0]}")
    return options, overrides


def _empty(arguments: Sequence[str]) -> str | None:
    """What has an empty value, which would mean that it is not given; None if nothing has."""
    for before, argument in zip(["an argument", *arguments], arguments, strict=False):
        if not argument:
            return before if before.startswith("--") else "an argument"
        if re.fullmatch(r"--[\w-]+=", argument):
            return argument[:-1]
    return None


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, like the rest of the program."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; only those among the arguments have arguments of their own."""
    from vit_jax import commands

    parser = Parser(prog="vit_jax", description="Vision Transformers in JAX.")
    parser.add_argument("--version", action="version", version=f"vit_jax {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in commands.COMMANDS.items():
        text = inspect.cleandoc(command.run.__doc__ or "")
        sub = subparsers.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in arguments:
            command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def _fail(error: BaseException | str, code: int) -> int:
    line = printable(" ".join(str(error).split()))
    if len(line) > LONGEST:  # the end often says what to do
        line = f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"
    print(f"vit_jax: {line}", file=sys.stderr)
    return code


def _in_a_job() -> bool:
    """Whether this process is one of several that train or evaluate together."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def _leave(code: int) -> int:
    """Returns the exit code; does not return in a job, whose other processes may wait for this."""
    if _in_a_job():
        from vit_jax.parallel import multihost

        multihost.leave(code)
    return code


def _lost_another(error: Exception) -> bool:
    """Whether the network to another process of the job failed."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in str(error) for word in ("Gloo", "NCCL", "UNAVAILABLE", "closed by peer")
    )


def _command(arguments: Sequence[str]) -> str:
    """`: vit_jax train ...`, the command to type again."""
    name = pathlib.Path(sys.argv[0])
    program = ["python", "-m", "vit_jax"] if name.name == "__main__.py" else [name.name]
    return f": {shlex.join([*program, *arguments])}"


def _raised_by_us(error: BaseException) -> bool:
    """Whether this package raised the error, or the package of a guest: an entry of a table."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    package = _package(frames[-1][0].f_globals.get("__name__", ""))
    return package == "vit_jax" or package in _packages_of_entries()


def _packages_of_entries() -> set[str]:
    """The packages, or scripts, that define the entries of the tables."""
    from vit_jax import commands, schema
    from vit_jax.checkpoints import layouts
    from vit_jax.config import Config
    from vit_jax.models import zoo

    tables = [*schema.tables(Config), commands.COMMANDS, layouts.LAYOUTS, zoo.FAMILIES]
    return {_package(name) for table in tables for name in _modules(tuple(table.values()))}


def _modules(entry: Any) -> Iterator[str]:
    """The modules that define the classes and functions of an entry."""
    if isinstance(entry, types.ModuleType):
        yield entry.__name__
    elif isinstance(entry, tuple):
        for part in entry:
            yield from _modules(part)
    elif dataclasses.is_dataclass(entry) and not isinstance(entry, type):
        yield from _modules((type(entry), *vars(entry).values()))
    else:
        yield getattr(entry, "__module__", None) or ""


def _package(module: str) -> str:
    return module.partition(".")[0]


if __name__ == "__main__":
    program()
