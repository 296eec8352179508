"""Two real processes train as one, whatever stops them, and evaluate every example once."""

import csv
import dataclasses
import json
import pathlib
import shutil
import signal
import sys

import numpy as np
import PIL.Image
import pytest

from tests import cli, runs
from tests.compare import assert_close
from tests.patience import limit
from vit_jax.data import batches

STEPS = 24
OVERRIDES = (
    f"--config.total.steps={STEPS}",
    "--config.evaluate_every.steps=12",
    "--config.checkpoint.every.steps=12",
    "--config.eval_batch_size=904",  # does not divide the 5000 examples
    # Adam would blow up the rounding of gradients that are zero, such as those of key biases.
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=0.02",
)
ONE = (*OVERRIDES, "--config.mesh.data=2", "--config.mesh.fsdp=4")  # the devices of this process
TWO = (*OVERRIDES, "--config.mesh.data=2", "--config.mesh.fsdp=2")  # of two, with two each
LAUNCH = (
    *(sys.executable, "-m", "launch.local"),
    *("--processes", "2", "--devices-per-process", "2", "--"),
)

# Two processes, each of which writes down the examples that it trains on.
RECORDED = """
import sys
from launch import local
JOB = '''
import json, os, sys
from vit_jax.__main__ import main
from vit_jax.data import batches
following = batches.Batches.__next__
file = open(sys.argv[1] + os.environ["VIT_JAX_PROCESS_ID"], "w")
# The order of the devices.
def recorded(iterator):
    batch = following(iterator)
    if "mask" not in batch:
        print(json.dumps(batch["id"].tolist()), file=file, flush=True)
    return batch
batches.Batches.__next__ = recorded
sys.exit(main(sys.argv[2:]))
'''
program = [sys.executable, *(f"-W{one}" for one in sys.warnoptions), "-c", JOB, *sys.argv[1:]]
sys.exit(local.run(program, processes=2, devices_per_process=2))
"""

# Devices of the two processes alternate, as those of TPU hosts do along a ring of the network.
WOVEN = """
import numpy as np
from vit_jax.parallel import mesh
mesh.arrange = lambda devices, sizes: np.array(devices).reshape(2, -1).T.reshape(sizes)
"""


@pytest.fixture(scope="module")
def one(command) -> tuple[pathlib.Path, list[list[int]]]:
    """The run of one process, which is this one: its folder and the examples of each step."""
    workdir, seen = command.folder / "of-1", []
    following = batches.Batches.__next__

    def recorded(iterator):
        batch = following(iterator)
        if "mask" not in batch:
            seen.append(batch["id"].tolist())
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.Batches, "__next__", recorded)
        assert cli.run(*command.train(workdir, *ONE)) == 0
    return workdir, seen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Two:
    """The run of two processes, which SIGTERM to their launcher stopped once."""

    workdir: pathlib.Path
    stopped: pathlib.Path  # a copy of the folder from before the run went on
    step: int  # after which it stopped
    ids: tuple[np.ndarray, np.ndarray]  # (steps, rows) that each process trained on


@pytest.fixture(scope="module")
def two(command) -> Two:
    workdir = command.folder / "of-2"
    job = command.train(workdir, *TWO)
    program = (*cli.PYTHON, "-c", RECORDED)
    with cli.start(f"{workdir}-before", *job, program=program) as child:
        try:
            cli.wait_until(lambda: len(runs.lines(workdir)) > 4, child)
            child.send_signal(signal.SIGTERM)
            _, errors = child.communicate(timeout=limit(cli.LIMIT))
        finally:
            child.kill()
    assert child.returncode == 143, errors
    step = int(runs.arrays(workdir)["step"])
    assert errors.count(f"vit_jax: stopped after step {step} of {STEPS} and saved") == 2, errors
    stopped = pathlib.Path(shutil.copytree(workdir, command.folder / "stopped"))
    ended = cli.process(f"{workdir}-after", *job, program=program)
    assert ended.returncode == 0, ended.stderr
    assert f"resumed after step {step}" in ended.stderr
    seen = [[ids(f"{workdir}-{name}{i}") for name in ("before", "after")] for i in range(2)]
    first, second = (np.concatenate([before[:step], after]) for before, after in seen)
    return Two(workdir=workdir, stopped=stopped, step=step, ids=(first, second))


def ids(path: str) -> np.ndarray:
    """(steps, rows of the process)."""
    return np.array([json.loads(line) for line in pathlib.Path(path).read_text().splitlines()])


def assert_same_run(left: pathlib.Path, right: pathlib.Path) -> None:
    """The same run within rounding: every array, every line of the metrics."""
    assert_close(runs.arrays(right), runs.arrays(left), rtol=1e-5, atol=1e-5)
    assert len(runs.lines(left)) == len(runs.lines(right))
    for line, other in zip(runs.lines(left), runs.lines(right), strict=True):
        assert other.keys() == line.keys()
        for name, value in line.items():
            # Rounding may decide between two classes that tie on one of the 5,000 images.
            bound = 1.01 / 5000 if "_top" in name else 1e-5
            assert other[name] == pytest.approx(value, rel=1e-4, abs=bound), name


def test_two_processes_that_were_stopped_give_the_result_of_one(one, two) -> None:
    assert 0 < two.step < STEPS
    assert [part.shape for part in two.ids] == [(STEPS, 8)] * 2
    workdir, seen = one
    np.testing.assert_array_equal(np.concatenate(two.ids, axis=1), seen)
    assert_same_run(workdir, two.workdir)


def test_processes_whose_rows_have_gaps_give_the_result_of_one(command, one) -> None:
    workdir = command.folder / "of-2-woven"
    program = (*cli.PYTHON, "-c", RECORDED.replace("# The order of the devices.", WOVEN))
    ended = cli.process(f"{workdir}-", *command.train(workdir, *TWO), program=program)
    assert ended.returncode == 0, ended.stderr
    # The parts of a batch of 16 are 0 to 3 and 8 to 11 in the first process.
    parts = [ids(f"{workdir}-{i}").reshape(STEPS, 2, 4) for i in range(2)]
    together = np.stack(parts, axis=2).reshape(STEPS, 16)
    np.testing.assert_array_equal(together, one[1])
    assert_same_run(one[0], workdir)


def test_one_process_goes_on_with_what_two_did(command, one, two, capsys) -> None:
    capsys.readouterr()
    assert cli.run(*command.train(two.stopped, *ONE)) == 0
    assert f"resumed after step {two.step}" in capsys.readouterr().err
    assert_same_run(one[0], two.stopped)


def test_two_processes_evaluate_every_example_once(two) -> None:
    file = two.workdir.parent / "answers.csv"
    command = ("evaluate", "--workdir", two.workdir, "--json", "--predictions", file)
    ended = cli.process(*command, program=LAUNCH)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    last = runs.lines(two.workdir)[-1]
    assert found["count"] == last["eval_count"] == 5000
    assert found == pytest.approx({k.removeprefix("eval_"): v for k, v in last.items()}, rel=1e-6)
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["image"] for row in rows] == [str(i) for i in range(5000)]
    hits = [row["label"] == row["predicted"] for row in rows]
    assert np.mean(hits) == pytest.approx(found["ema_top1"])


# Each process has overrides of its own.
OWN = """
import sys
from launch import local
JOB = '''
import json, os, sys
from vit_jax.__main__ import main
from vit_jax.checkpoints import lease
lease.LATE = 1
sys.exit(main(sys.argv[2:] + json.loads(sys.argv[1])[int(os.environ["VIT_JAX_PROCESS_ID"])]))
'''
job = [sys.executable, *(f"-W{one}" for one in sys.warnoptions), "-c", JOB, *sys.argv[1:]]
sys.exit(local.run(job, processes=2, grace=20))
"""
# The process that is not the coordinator takes three seconds to say what it knows.
SLOW = """
from vit_jax import __main__
if os.environ["VIT_JAX_PROCESS_ID"] == "1":
    import time
    say = __main__._fail
    __main__._fail = lambda *what: time.sleep(3) or say(*what)
sys.exit("""


def refused(
    command, name: str, own: list[list[str]], *overrides: str, program: str = OWN
) -> list[str]:
    """A job that must end with exit code 2 and leave nothing: the line of each process."""
    workdir = command.folder / name
    job = command.train(workdir, *overrides)
    ended = cli.process(json.dumps(own), *job, program=(*cli.PYTHON, "-c", program))
    assert ended.returncode == 2, ended.stderr
    assert not workdir.exists()
    return sorted(line for line in ended.stderr.splitlines() if "vit_jax: " in line)


def test_processes_of_other_configs_are_all_refused(command) -> None:
    """They would train on, each in its way, or wait for each other for ever."""
    overrides = ["--config.seed=5", "--config.total.steps=9", "--config.data.threads=3"]
    said = refused(command, "other-configs", [[], overrides])
    assert len(said) == 2 and said[0].startswith("[1] vit_jax: ")
    for line in said:
        assert "differ: config.seed is 0 in process 0 and 5 in process 1; config.total" in line
        assert "threads" not in line


def test_a_slow_process_still_says_why_it_ends(command) -> None:
    """JAX would abort it without a word once the coordinator, which knows sooner, is gone."""
    program = OWN.replace("sys.exit(", SLOW, 1)
    said = refused(command, "slow", [[], ["--config.seed=5"]], program=program)
    assert len(said) == 2 and said[0].startswith("[1] vit_jax: the processes of this job differ")


def test_processes_of_other_data_are_all_refused(command) -> None:
    """The folder may be anywhere on each host, but holds the same images."""
    rng = np.random.default_rng(0)
    for host in "ab":
        for name in ("train/x/0", "train/y/1", "val/x/2"):
            path = command.folder / host / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    own = [[f"--config.data.path={command.folder / host}"] for host in "ab"]
    for line in refused(command, "other-data", own, "--config.data.source=image_folder"):
        assert "the data (train): number and digest of x is 1 " in line and "in process 1" in line


def test_processes_of_other_workdirs_are_all_refused(command, monkeypatch) -> None:
    """Each would write its part of a checkpoint into a folder of its own."""
    other = command.folder / "elsewhere"
    own = [[], ["--workdir", str(other)]]
    for line in refused(command, "other-workdirs", own):
        assert "the workdir, by its lease, is " in line
        assert " in process 0 and another folder in process 1" in line
    assert not other.exists()


# Process 1 is told to stop after its second batch, and then reads held-out images slowly.
SLOW_EVALUATION = """
if os.environ["VIT_JAX_PROCESS_ID"] == "1":
    import signal, time
    from vit_jax.data import batches, reading
    from vit_jax.parallel import multihost
    multihost.READ_LIMIT = 1.0
    read, following, told = reading.read, batches.Batches.__next__, []
    def slow(*args, **kwargs):
        if told and kwargs["unlabelled"] == "skip":
            time.sleep(3)
        return read(*args, **kwargs)
    def counted(iterator):
        batch = following(iterator)
        told.append(1)
        if len(told) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch
    reading.read, batches.Batches.__next__ = slow, counted
sys.exit("""


def test_a_process_that_gives_up_an_evaluation_ends_the_job_and_saves_nothing(command) -> None:
    """It would wait for the others in the save, while they wait for it in the evaluation."""
    workdir = command.folder / "slow-evaluation"
    job = command.train(workdir, "--config.evaluate_every.steps=2", "--config.ema=0")
    program = (*cli.PYTHON, "-c", OWN.replace("sys.exit(", SLOW_EVALUATION, 1))
    ended = cli.process(json.dumps([[], []]), *job, program=program)
    assert ended.returncode == 1, ended.stderr
    assert "told to stop by SIGTERM after step 2, but this process waited for its" in ended.stderr
    assert "the same command begins again: nothing was saved" in ended.stderr


def test_where_one_process_fails_all_end_soon_and_say_why(command) -> None:
    """An ordinary exit of a process waits for the others, who wait for it: for five minutes."""
    own = [[], ["--config.optimizer.lerning_rate=1"]]
    first, second = refused(command, "failed", own)
    assert first.startswith("[1] vit_jax: unknown config field config.optimizer.lerning_rate")
    assert second.startswith("vit_jax: process 1: unknown config field config.optimizer.lerning")
