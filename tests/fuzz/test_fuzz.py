"""Damaged files are read, or refused in one line, within limits of time and memory.

VIT_JAX_FUZZ sets the number of files of each kind, VIT_JAX_FUZZ_SEED the seed. To repeat one case,
run `python -m tests.fuzz.worker FOLDER KIND --seed SEED --only NUMBER`.
"""

import json
import os
import pathlib
import sys

import pytest

from tests import cli
from tests.fuzz.kinds import KINDS

COUNT = int(os.environ.get("VIT_JAX_FUZZ", "1000"))
SEED = os.environ.get("VIT_JAX_FUZZ_SEED", "0")
IMAGES = ("jpeg", "png", "webp", "other_images")
WORKER = (sys.executable, "-m", "tests.fuzz.worker")
CHECKPOINTS = tuple(name for name in KINDS if name not in IMAGES)


@pytest.mark.parametrize("kinds", [IMAGES, CHECKPOINTS], ids=["images", "checkpoints"])
def test_damaged_files_are_read_or_refused_in_one_line(
    tmp_path: pathlib.Path, kinds: tuple[str, ...]
) -> None:
    arguments = [tmp_path, *kinds, "--seed", SEED, "--count", COUNT]
    child = cli.process(*arguments, program=WORKER, seconds=600 + COUNT)
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    case = (tmp_path / "current").read_text()
    assert child.returncode == 0, f"{case}: {child.stderr[-2000:]}"
    assert not [line for line in lines if "verdict" in line]
    for kind, line in zip(kinds, lines, strict=True):
        counts = line["counts"]
        assert line["kind"] == kind and sum(counts.values()) == COUNT
        # Some files must be read and some refused, else the damage is too large or too small.
        assert min(counts.get("read", 0), counts.get("refused", 0)) >= COUNT // 50, line


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_the_worker_reports_other_outcomes(tmp_path: pathlib.Path, kind: str) -> None:
    """With a broken reader. Otherwise the test above could never fail."""
    program = (
        "import sys; from tests.fuzz import kinds, worker\n"
        "read = kinds.KINDS[sys.argv[2]].read\n"
        "faults = [lambda: 1 / 0, lambda: bytearray(600 * 2**20), lambda: int('x')]\n"
        "def broken(self, path):\n"
        "    read(self, path) if not path.stem.startswith('damaged') else faults.pop()()\n"
        "kinds.KINDS[sys.argv[2]].read = broken\n"
        "worker.main()\n"
    )
    child = cli.process(tmp_path, kind, "--count", 3, program=(sys.executable, "-c", program))
    assert child.returncode == 0, child.stderr
    verdicts = [json.loads(line).get("verdict") for line in child.stdout.splitlines()]
    expected = ["refused, not in one line of ours", "too much memory", "ZeroDivisionError", None]
    assert verdicts == expected
