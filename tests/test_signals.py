"""Ctrl-C, SIGTERM and SIGHUP end a command with one line wherever it is, and lose nothing."""

import contextlib
import functools
import os
import pathlib
import signal

import numpy as np
import PIL.Image
import pytest

from tests import cli, runs
from tests.patience import limit
from vit_jax.checkpoints import lease, store
from vit_jax.evaluators import held_out
from vit_jax.training import run_config

OVERRIDES = (
    "--config.total.steps=200",
    "--config.log_every.steps=1",
    "--config.checkpoint.every.steps=20",
)


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    """Two classes of eight small images, for training and for evaluation."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = rng.integers(0, 255, (30, 30, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "data"


def reached(workdir: pathlib.Path, count: int) -> bool:
    """Whether the run has written more lines than that."""
    return len(runs.lines(workdir)) > count


def end(command, workdir, condition, *numbers: signal.Signals, overrides=()) -> tuple[int, str]:
    """Starts or resumes the run, sends the signals when the condition holds: code, last line."""
    with cli.start(*command.train(workdir, *OVERRIDES, *overrides)) as child:
        try:
            cli.wait_until(condition, child)
            for number in numbers:
                child.send_signal(number)
            _, errors = child.communicate(timeout=limit(cli.LIMIT))
        finally:
            child.kill()
    assert "Traceback" not in errors
    assert not (workdir / lease.NAME).exists()
    return child.returncode, errors.strip().splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_first_step_there_is_nothing_to_save(command, tmp_path, number) -> None:
    """While Python imports JAX: the process has begun to run our lines when it has a thread."""
    workdir = tmp_path / "run"
    with cli.start(*command.train(workdir, *OVERRIDES)) as child:
        try:
            tasks = pathlib.Path(f"/proc/{child.pid}/task")
            cli.wait_until(lambda: len(os.listdir(tasks)) > 1, child)
            child.send_signal(number)
            _, errors = child.communicate(timeout=limit(20))
        finally:
            child.kill()
    assert child.returncode == 128 + number
    assert errors == "vit_jax: interrupted before the first step: nothing to save\n"
    assert not workdir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_a_module_is_imported_a_command_ends_at_once(tmp_path, number) -> None:
    """An exception within the C++ code of a module that is half imported may crash the process."""
    lines = ("import os, time", f"os.kill(os.getpid(), {int(number)})", "time.sleep(60)")
    (tmp_path / "interrupted.py").write_text("\n".join(lines))
    program = f"""
import sys
from vit_jax import stopping
stopping.install()
stopping.raises()
sys.path.append({str(tmp_path)!r})
try:
    import interrupted
finally:
    print("an exception")
"""
    ended = cli.process(program=(*cli.PYTHON, "-c", program), seconds=20)
    assert (ended.returncode, ended.stdout) == (128 + number, "")
    assert ended.stderr == "vit_jax: interrupted\n"


def test_the_first_interrupt_saves_and_the_second_ends_at_once(command, tmp_path) -> None:
    workdir = tmp_path / "run"
    # Only the interrupt saves, and the run is far from its end, however late the signal is sent.
    long = ("--config.total.steps=3000", "--config.checkpoint.every.steps=3000")
    begun = functools.partial(reached, workdir, 3)
    code, said = end(command, workdir, begun, signal.SIGINT, overrides=long)
    assert code == 130
    (saved,) = store.saved_steps(workdir)
    assert said.startswith(f"vit_jax: stopped after step {saved} of 3000 and saved: run the same")
    assert f"-m vit_jax train --config {command.recipe} --workdir {workdir}" in said
    twice = (signal.SIGINT, signal.SIGTERM)
    goes_on = functools.partial(reached, workdir, saved + 3)
    code, said = end(command, workdir, goes_on, *twice, overrides=long)
    assert code in (130, 143)  # both may come before the thread looks
    assert "ended at once" in said or "stopped after step" in said
    assert store.saved_steps(workdir)[0] == saved


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_read_that_blocks_and_an_evaluation_are_given_up(command, images, split) -> None:
    """One image is a pipe that nobody writes to. What was left out is made up for afterwards."""
    workdir = images.parent / "run"
    blocked = images / split / "cat" / "3.png"
    beside, picture = images.parent / "pipe", blocked.read_bytes()
    overrides = (
        *("--config.data.source=image_folder", f"--config.data.path={images}"),
        *("--config.evaluate_every.steps=15", "--config.total.steps=30"),
    )

    def waits() -> bool:
        if len(runs.lines(workdir)) > 4 and blocked.is_file():
            os.mkfifo(beside)
            os.replace(beside, blocked)  # a reader never misses the file
        if blocked.is_fifo():
            with contextlib.suppress(OSError):  # it opens for writing once somebody reads
                writing.append(os.open(blocked, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writing)

    writing: list[int] = []
    code, said = end(command, workdir, waits, signal.SIGTERM, overrides=overrides)
    assert code == 143
    stopped = store.saved_steps(workdir)[-1]
    assert said.startswith(f"vit_jax: stopped after step {stopped} of 30 and saved")
    os.close(writing[0])
    blocked.unlink()
    blocked.write_bytes(picture)
    assert cli.run(*command.train(workdir, *OVERRIDES, *overrides)) == 0
    lines = runs.lines(workdir)
    assert [line["step"] for line in lines if "eval_loss" in line] == [15, 30]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 31))


def test_from_python_only_a_first_signal_of_the_loop_is_noted(
    command, tmp_path, monkeypatch, capsys
) -> None:
    """The handlers of whoever calls `train` are there again afterwards.

    The first step can be saved already. The evaluation is made up for, and saved with the step.
    """
    real = held_out.add_up

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(held_out, "add_up", interrupted)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    workdir = tmp_path / "run"
    job = command.train(workdir, "--config.evaluate_every.steps=1", "--config.total.steps=2")
    assert cli.run(*job) == 130
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert "stopped after step 1 of 2 and saved" in capsys.readouterr().err
    assert store.saved_steps(workdir) == [1]
    monkeypatch.setattr(held_out, "add_up", real)
    assert cli.run(*job) == 0
    assert [line["step"] for line in runs.lines(workdir) if "eval_loss" in line] == [1, 2]
    with store.Store(workdir, run_config.read_config(workdir).checkpoint, read_only=True) as saved:
        assert saved.is_evaluated(1)
