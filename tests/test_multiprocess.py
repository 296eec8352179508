"""Two real processes train as one, whatever stops them, and evaluate every example once."""

import json
import pathlib
import signal
import sys
import time

import numpy as np
import pytest

from tests import runs

STEPS = 80
OVERRIDES = (
    f"--config.total.steps={STEPS}",
    "--config.evaluate_every.steps=40",
    "--config.checkpoint.every.steps=40",
    "--config.eval_batch_size=900",  # does not divide the 5000 examples
    "--config.mesh.data=2",
    "--config.mesh.fsdp=2",
    # Adam would blow up the rounding of gradients that are zero, such as those of key biases.
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=0.02",
)
LAUNCH = (sys.executable, "-m", "launch.local", "--processes", "2", "--devices-per-process", "2")
PYTHON = (sys.executable, "-W", "error")

# A job that writes down, in each process, which examples it trains on.
RECORDED = """
import json, os, sys
from launch import local
JOB = '''
import json, os, sys
from vit_jax.__main__ import main
from vit_jax.data import pipeline
following = pipeline.Batches.__next__
file = open(sys.argv[1] + os.environ.get("VIT_JAX_PROCESS_ID", ""), "w")
def recorded(batches):
    batch = following(batches)
    if "position" in batch:
        print(json.dumps(batch["id"].tolist()), file=file, flush=True)
    return batch
pipeline.Batches.__next__ = recorded
sys.exit(main(sys.argv[2:]))
'''
record, processes, *job = sys.argv[1:]
program, count = [sys.executable, "-W", "error", "-c", JOB, record], int(processes)
sys.exit(local.run([*program, *job], processes=count, devices_per_process=4 // count))
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> runs.CommandLine:
    return runs.CommandLine(tmp_path_factory.mktemp("multiprocess"))


def recorded(command: runs.CommandLine, *, processes: int) -> pathlib.Path:
    """An uninterrupted run on four devices, with the examples of every process beside it."""
    workdir = command.folder / f"of-{processes}"
    job = command.train(workdir, *OVERRIDES)
    ended = command(f"{workdir}-ids", processes, *job, program=(*PYTHON, "-c", RECORDED))
    assert ended.returncode == 0, ended.stderr
    return workdir


@pytest.fixture(scope="module")
def one(command) -> pathlib.Path:
    return recorded(command, processes=1)


@pytest.fixture(scope="module")
def two(command) -> pathlib.Path:
    return recorded(command, processes=2)


def ids(path: str) -> np.ndarray:
    """(steps, rows of the process)."""
    return np.array([json.loads(line) for line in pathlib.Path(path).read_text().splitlines()])


def assert_close(left: pathlib.Path, right: pathlib.Path) -> None:
    """The same run within rounding: every array, every line of the metrics."""
    arrays, others = runs.arrays(left), runs.arrays(right)
    for name, array in arrays.items():
        np.testing.assert_allclose(others[name], array, rtol=1e-5, atol=1e-5, err_msg=name)
    assert len(runs.lines(left)) == len(runs.lines(right))
    for line, other in zip(runs.lines(left), runs.lines(right), strict=True):
        assert other.keys() == line.keys()
        for name, value in line.items():
            # Rounding may decide between two classes that tie on one of the 5,000 images.
            bound = 1.01 / 5000 if "_top" in name else 1e-5
            assert other[name] == pytest.approx(value, rel=1e-4, abs=bound), name


def test_two_processes_give_the_result_of_one(one, two) -> None:
    both = [ids(f"{two}-ids{index}") for index in range(2)]
    assert [part.shape for part in both] == [(STEPS, 8)] * 2
    np.testing.assert_array_equal(np.concatenate(both, axis=1), ids(f"{one}-ids0"))
    assert_close(one, two)


def test_two_processes_evaluate_every_example_once(command, two) -> None:
    ended = command("--", "evaluate", "--workdir", two, "--json", program=LAUNCH)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    last = runs.lines(two)[-1]
    assert found["count"] == last["eval_count"] == 5000
    assert found == pytest.approx({k.removeprefix("eval_"): v for k, v in last.items()}, rel=1e-6)


def test_sigterm_to_the_launcher_saves_and_any_number_of_processes_goes_on(command, two) -> None:
    """Stopped twice, so that two processes resume what two began, and one what two did."""
    workdir = command.folder / "terminated"
    job = command.train(workdir, *OVERRIDES)
    stopped = [0]
    for _ in range(2):
        with command.start("--", *job, program=LAUNCH) as child:
            try:
                runs.wait_until(lambda: len(runs.lines(workdir)) > stopped[-1] + 4, child)
                child.send_signal(signal.SIGTERM)
                _, errors = child.communicate(timeout=runs.LIMIT)
            finally:
                child.kill()
        assert child.returncode == 143, errors
        stopped.append(int(runs.arrays(workdir)["step"]))
        message = f"vit_jax: stopped after step {stopped[-1]} of {STEPS} and saved"
        assert errors.count(message) == 2, errors
    assert 0 < stopped[1] < stopped[2] < STEPS
    ended = command(*job, devices=4)
    assert ended.returncode == 0, ended.stderr
    assert f"resumed after step {stopped[2]}" in ended.stderr
    assert_close(workdir, two)


# Process 1 cannot find its data.
FAILING = """
import sys
from launch import local
JOB = '''
import os, sys
from vit_jax.__main__ import main
other = ["--config.data.source=image_folder", "--config.data.path=nowhere"]
sys.exit(main(sys.argv[1:] + (other if os.environ["VIT_JAX_PROCESS_ID"] == "1" else [])))
'''
job = [sys.executable, "-W", "error", "-c", JOB, *sys.argv[1:]]
sys.exit(local.run(job, processes=2, grace=1))
"""


def test_where_one_process_fails_the_job_ends_soon(command) -> None:
    """An ordinary exit of a process waits for the others, who wait for it: for five minutes."""
    job = command.train(command.folder / "failed")
    started = time.monotonic()
    ended = command(*job, program=(*PYTHON, "-c", FAILING))
    assert time.monotonic() - started < 60
    assert ended.returncode == 2
    assert "[1] vit_jax: config.data.path nowhere is not a folder" in ended.stderr
