"""A run that was stopped, however it was, gives the bits of one that was not."""

import os
import pathlib
import random
import shutil
import signal
import time
import unittest.mock
from collections.abc import Iterator

import numpy as np
import pytest

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.patience import limit
from vit_jax.data import batches
from vit_jax.parallel import rules

STEPS = 24
OVERRIDES = (
    f"--config.total.steps={STEPS}",
    "--config.evaluate_every.steps=15",
    "--config.checkpoint.every.steps=4",
    "--config.log_every.steps=3",  # lines have means over steps before and after a checkpoint
    "--config.mesh.data=2",
    "--config.mesh.fsdp=4",
    "--config.model.dropout=0.1",
    "--config.optimizer.moment_dtype=bfloat16",
)
FLOOR = 65_536  # `rules.SMALLEST` of a process that does not set it, as the tests do
DEVICES = 8  # those of this process: programs, and so bits, depend on their number


@pytest.fixture(scope="module", autouse=True)
def the_split_of_a_child() -> Iterator[None]:
    """Runs of this process split the same arrays as the processes that are started here."""
    with unittest.mock.patch.object(rules, "SMALLEST", FLOOR):
        yield


@pytest.fixture(scope="module")
def uninterrupted(command) -> pathlib.Path:
    workdir = command.folder / "uninterrupted"
    assert cli.run(*command.train(workdir, *OVERRIDES)) == 0
    return workdir


def stop(command, workdir: pathlib.Path, condition, number: signal.Signals) -> tuple[int, str]:
    """Starts or resumes the run, sends the signal when the condition holds: code and stderr."""
    with cli.start(*command.train(workdir, *OVERRIDES), devices=DEVICES) as child:
        try:
            cli.wait_until(condition, child)
            child.send_signal(number)
            _, errors = child.communicate(timeout=limit(cli.LIMIT))
        finally:
            child.kill()
    return child.returncode, errors


def finish(command, workdir: pathlib.Path, capsys) -> str:
    """Resumes the run in this process: what it says."""
    capsys.readouterr()
    assert cli.run(*command.train(workdir, *OVERRIDES)) == 0
    return capsys.readouterr().err


def assert_same_run(left: pathlib.Path, right: pathlib.Path) -> None:
    assert_same_bits(runs.arrays(left), runs.arrays(right))
    assert runs.lines(left) == runs.lines(right)


def test_a_run_killed_twice_gives_the_same_bits(command, uninterrupted, capsys) -> None:
    """By SIGKILL, during a save and at a random step; then it may finish."""
    workdir = command.folder / "killed"
    seed = int(os.environ.get("VIT_JAX_KILL_SEED", time.time_ns() % 2**32))
    draw = random.Random(seed)
    # At step 10 the first checkpoint is complete, because the save of the second one waits for it.
    then = draw.randrange(10, STEPS - 9)
    first = draw.randrange(5, then)
    print(f"killed at steps {first} and {then}: again with VIT_JAX_KILL_SEED={seed}")

    def saving() -> bool:
        return any((workdir / "checkpoints").glob("*tmp*"))

    def reached(step: int) -> bool:
        return any(line["step"] >= step for line in runs.lines(workdir))

    for condition in (lambda: reached(first) and saving(), lambda: reached(then)):
        code, errors = stop(command, workdir, condition, signal.SIGKILL)
        assert code == -signal.SIGKILL, errors
    assert "resumed after step" in finish(command, workdir, capsys)
    assert_same_run(workdir, uninterrupted)
    assert not saving(), "what a kill left of a checkpoint is still there"


def test_a_run_whose_last_checkpoint_is_damaged_gives_the_same_bits(
    command, uninterrupted, capsys
) -> None:
    """The lines of the steps that are done again stand there once."""
    workdir = pathlib.Path(shutil.copytree(uninterrupted, command.folder / "damaged"))
    for path in (workdir / "checkpoints" / str(STEPS)).rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:-1])
    said = finish(command, workdir, capsys)
    assert f"note: checkpoint {STEPS} is damaged: " in said
    assert f"resumed after step {STEPS - 4}" in said
    assert f"is kept as {STEPS}.damaged" in said
    assert_same_run(workdir, uninterrupted)


def test_sigterm_saves_and_a_second_run_gives_the_same_bits(command, uninterrupted, capsys) -> None:
    workdir = command.folder / "terminated"
    code, errors = stop(command, workdir, lambda: len(runs.lines(workdir)) >= 2, signal.SIGTERM)
    assert code == 143
    assert errors.splitlines()[-1].startswith("vit_jax: stopped after step ")
    stopped = int(errors.splitlines()[-1].split()[4])
    assert 6 <= stopped < STEPS
    assert int(runs.arrays(workdir)["step"]) == stopped
    assert f"resumed after step {stopped}" in finish(command, workdir, capsys)
    assert_same_run(workdir, uninterrupted)


def test_a_finished_run_says_so_and_changes_nothing(command, uninterrupted, capsys) -> None:
    before = runs.listing(uninterrupted)
    said = finish(command, uninterrupted, capsys)
    assert f"the run is complete: step {STEPS} of {STEPS}" in said
    assert runs.listing(uninterrupted) == before


def test_on_another_mesh_the_same_examples_come_in_the_same_order(
    command, monkeypatch, capsys
) -> None:
    seen: list[list[int]] = []
    following, stop_at = batches.Batches.__next__, 0

    def recorded(iterator):
        batch = following(iterator)
        if "mask" not in batch:
            seen.append(batch["id"].tolist())
            if len(seen) == stop_at:
                raise KeyboardInterrupt
        return batch

    def train(name: str, *overrides: str) -> tuple[int, list[list[int]]]:
        steps = ("--config.total.steps=6", "--config.checkpoint.every.steps=2")
        seen.clear()
        return cli.train(command.recipe, command.folder / name, *steps, *overrides), list(seen)

    monkeypatch.setattr(batches.Batches, "__next__", recorded)
    code, straight = train("straight", "--config.mesh.data=8")
    assert code == 0 and np.shape(straight) == (6, 16)
    stop_at = 5
    assert train("moved", "--config.mesh.data=8") == (130, straight[:5])
    stop_at = 0
    capsys.readouterr()
    assert train("moved", "--config.mesh.data=1", "--config.mesh.fsdp=8") == (0, straight[4:])
    assert "resumed after step 4" in capsys.readouterr().err
    expected, moved = (runs.arrays(command.folder / name) for name in ("straight", "moved"))
    assert_close(moved, expected, rtol=1e-5, atol=1e-5)
