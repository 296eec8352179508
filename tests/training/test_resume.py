"""A run that was stopped, however it was, gives the bits of one that was not."""

import json
import os
import pathlib
import random
import shutil
import signal
import time

import numpy as np
import pytest

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.patience import limit

STEPS = 40
OVERRIDES = (
    f"--config.total.steps={STEPS}",
    "--config.evaluate_every.steps=15",
    "--config.checkpoint.every.steps=4",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=2",
    "--config.model.dropout=0.1",
    "--config.optimizer.moment_dtype=bfloat16",
)
DEVICES = 4


@pytest.fixture(scope="module")
def uninterrupted(command) -> pathlib.Path:
    workdir = command.folder / "uninterrupted"
    ended = cli.process(*command.train(workdir, *OVERRIDES), devices=DEVICES)
    assert ended.returncode == 0, ended.stderr
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


def finish(command, workdir: pathlib.Path) -> None:
    ended = cli.process(*command.train(workdir, *OVERRIDES), devices=DEVICES)
    assert ended.returncode == 0, ended.stderr
    assert "resumed after step" in ended.stderr


def assert_same_run(left: pathlib.Path, right: pathlib.Path) -> None:
    assert_same_bits(runs.arrays(left), runs.arrays(right))
    assert runs.lines(left) == runs.lines(right)


def test_a_run_killed_several_times_gives_the_same_bits(command, uninterrupted) -> None:
    """By SIGKILL, during a save and at random steps; then it may finish."""
    workdir = command.folder / "killed"
    seed = int(os.environ.get("VIT_JAX_KILL_SEED", time.time_ns() % 2**32))
    first, then, last = sorted(random.Random(seed).sample(range(5, STEPS - 5), 3))
    print(f"killed at steps {first}, {then}, {last}: again with VIT_JAX_KILL_SEED={seed}")

    def saving() -> bool:
        return any((workdir / "checkpoints").glob("*tmp*"))

    def reached(step: int) -> bool:
        return any(line["step"] == step for line in runs.lines(workdir))

    for condition in (
        lambda: reached(first) and saving(),
        lambda: reached(then),
        lambda: reached(last),
    ):
        code, errors = stop(command, workdir, condition, signal.SIGKILL)
        assert code == -signal.SIGKILL, errors
    finish(command, workdir)
    assert_same_run(workdir, uninterrupted)
    assert not saving(), "what a kill left of a checkpoint is still there"


def test_a_run_whose_last_checkpoint_is_damaged_gives_the_same_bits(command, uninterrupted) -> None:
    """The lines of the steps that are done again stand there once."""
    workdir = pathlib.Path(shutil.copytree(uninterrupted, command.folder / "damaged"))
    for path in (workdir / "checkpoints" / str(STEPS)).rglob("manifest.ocdbt"):
        path.write_bytes(path.read_bytes()[:-1])
    ended = cli.process(*command.train(workdir, *OVERRIDES), devices=DEVICES)
    assert ended.returncode == 0, ended.stderr
    assert f"note: checkpoint {STEPS} is damaged: " in ended.stderr
    assert f"resumed after step {STEPS - 4}" in ended.stderr
    assert f"is kept as {STEPS}.damaged" in ended.stderr
    assert_same_run(workdir, uninterrupted)


def test_sigterm_saves_and_a_second_run_gives_the_same_bits(command, uninterrupted) -> None:
    workdir = command.folder / "terminated"
    code, errors = stop(command, workdir, lambda: len(runs.lines(workdir)) >= 6, signal.SIGTERM)
    assert code == 143
    assert errors.splitlines()[-1].startswith("vit_jax: stopped after step ")
    stopped = int(errors.splitlines()[-1].split()[4])
    assert 6 <= stopped < STEPS
    assert int(runs.arrays(workdir)["step"]) == stopped
    finish(command, workdir)
    assert_same_run(workdir, uninterrupted)


def test_a_finished_run_says_so_and_changes_nothing(command, uninterrupted) -> None:
    before = runs.listing(uninterrupted)
    ended = cli.process(*command.train(uninterrupted, *OVERRIDES), devices=DEVICES)
    assert ended.returncode == 0
    assert f"the run is complete: step {STEPS} of {STEPS}" in ended.stderr
    assert runs.listing(uninterrupted) == before


OTHER_MESH = """
import json, sys
from vit_jax.__main__ import main
from vit_jax.data import batches

recipe, folder = sys.argv[1:]
seen = []
following = batches.Batches.__next__

def recorded(batches):
    batch = following(batches)
    if "mask" not in batch:
        seen.append(batch["id"].tolist())
        if len(seen) == stop_at:
            raise KeyboardInterrupt
    return batch

batches.Batches.__next__ = recorded

def train(name, *overrides):
    workdir = f"{folder}/{name}"
    return main(["train", "--config", recipe, "--workdir", workdir,
                 "--config.total.steps=6", "--config.checkpoint.every.steps=2", *overrides])

stop_at, ids = 0, {}
assert train("straight", "--config.mesh.data=8") == 0
ids["straight"], seen[:] = list(seen), []
stop_at = 5
assert train("moved", "--config.mesh.data=8") == 130
ids["before"], seen[:] = list(seen), []
stop_at = 0
assert train("moved", "--config.mesh.data=1", "--config.mesh.fsdp=8") == 0
ids["after"] = seen
print(json.dumps(ids))
"""


def test_on_another_mesh_the_same_examples_come_in_the_same_order(command) -> None:
    ended = cli.process(
        command.recipe,
        command.folder,
        devices=8,
        program=(*cli.PYTHON, "-c", OTHER_MESH),
    )
    assert ended.returncode == 0, ended.stderr
    assert "resumed after step 4" in ended.stderr
    ids = json.loads(ended.stdout.splitlines()[-1])
    assert np.shape(ids["straight"]) == (6, 16)
    assert ids["before"] == ids["straight"][:5]
    assert ids["after"] == ids["straight"][4:]
    straight, moved = (runs.arrays(command.folder / name) for name in ("straight", "moved"))
    for name, array in straight.items():
        assert_close(moved[name], array, rtol=1e-5, atol=1e-5, about=name)
