"""Reads damaged files, and prints the cases that do not end as they must.

    python -m tests.fuzz.worker FOLDER KIND ... --seed 0 --count 1000 [--only NUMBER]

A case depends only on the seed, the kind and the number. A file must be read, or refused by a
ValueError of ours in one line, within limits of processor time and memory. The last line of stdout
counts the outcomes. FOLDER/current names the current case, in case it kills the process.
"""

import argparse
import collections
import contextlib
import functools
import json
import pathlib
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator

from tests.fuzz import kinds
from vit_jax.checkpoints import surgery

SECONDS = 3.0  # limit of processor time for a file of a few kilobytes
GROWTH = 500  # limit of additional memory in MiB
ADDRESSES = 4 * 2**30  # limit of additional address space in bytes


class TooLong(BaseException):
    """Not an Exception, so that no reader of files catches it."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("kinds", nargs="+", choices=kinds.KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # Most damaged files are of the same model: do not trace its shapes every time.
    surgery.shapes = functools.cache(surgery.shapes)
    signal.signal(signal.SIGVTALRM, _alarm)
    for name in options.kinds:
        folder = options.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind = kinds.KINDS[name](folder)
        kind.check()
        _limit()
        numbers = range(options.count) if options.only is None else [options.only]
        counts: collections.Counter[str] = collections.Counter()
        for number in numbers:
            (options.folder / "current").write_text(f"{name}, seed {options.seed}, case {number}")
            path = kind.write(random.Random(f"{options.seed} {name} {number}"))
            verdict, message = _read(kind, path)
            counts[verdict] += 1
            if verdict not in ("read", "refused"):
                case = {"kind": name, "seed": options.seed, "number": number, "verdict": verdict}
                print(json.dumps(case | {"message": message[-1500:]}), flush=True)
        print(json.dumps({"kind": name, "counts": counts}), flush=True)


def _read(kind: kinds.Kind, path: pathlib.Path) -> tuple[str, str]:
    """The outcome of one file, and the message of its error."""
    before, begin = _peak(reset=True), time.process_time()
    try:
        with _at_most(SECONDS):
            kind.read(path)
        verdict, message = "read", ""
    except TooLong:
        verdict, message = "too long", ""
    except ValueError as error:
        message = str(error)
        module = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals["__name__"]
        ours = module.split(".")[0] == "vit_jax"
        verdict = "refused" if ours and "\n" not in message else "refused, not in one line of ours"
        message = message if verdict == "refused" else _shown(error)
    except BaseException as error:
        verdict, message = type(error).__name__, _shown(error)
    if verdict in ("read", "refused") and time.process_time() - begin > SECONDS:
        verdict = "too long"
    if verdict in ("read", "refused") and _peak() - before > GROWTH:
        verdict, message = "too much memory", f"{_peak() - before} MiB"
    return verdict, message


def _shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _alarm(*_: object) -> None:
    raise TooLong


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_VIRTUAL, 2 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _limit() -> None:
    """Limits the address space of this process, so that too large allocations fail at once."""
    with contextlib.suppress(OSError):
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _peak(*, reset: bool = False) -> int:
    """The largest memory of this process in MiB since the last reset; 0 if it is not known."""
    try:
        if reset:
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


if __name__ == "__main__":
    sys.exit(main())
