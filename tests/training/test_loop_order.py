"""The order of the loop: nothing is lost, saved twice, or measured at the wrong time."""

import os
import signal

import pytest

from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.checkpoints import lease, store
from vit_jax.data import batches
from vit_jax.errors import Interrupted
from vit_jax.evaluators import held_out
from vit_jax.training import clock, metrics, reporting


@pytest.fixture
def at_batch(monkeypatch):
    """`at_batch(n, act)` calls `act` when the loop asks for its n-th batch of training images."""

    def patch(number, act) -> None:
        following, count = batches.Batches.__next__, 0

        def counted(iterator):
            nonlocal count
            count += 1
            if count == number:
                act()
            return following(iterator)

        monkeypatch.setattr(batches.Batches, "__next__", counted)

    return patch


# A run that is killed before this file is written with metrics of an evaluation.
KILLED = """
import os, signal, sys
from vit_jax.__main__ import main
from vit_jax.workdir import place
write = place.write_whole
def killed(path, data):
    if path.name == sys.argv[1] and "checkpoints" in path.parts:
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
place.write_whole = killed
sys.exit(main(sys.argv[2:]))
"""


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def evaluated(workdir) -> list[float]:
    return [line["step"] for line in runs.lines(workdir) if "eval_loss" in line]


def test_before_a_save_come_the_lease_and_the_lines_and_then_speed_is_measured_anew(
    recipe, tmp_path, monkeypatch
) -> None:
    """Neither compilation, nor a save, nor an evaluation counts as the time of steps.

    The end is saved, though it is neither due nor the best.
    """
    events: list[tuple[str, int | None]] = []

    def spy(owner, method: str, noted) -> None:
        real = getattr(owner, method)

        def called(self, *args, **kwargs):
            if noted(*args, **kwargs):
                step = next((arg for arg in args if isinstance(arg, int)), None)
                events.append((f"{owner.__name__}.{method}", step))
            return real(self, *args, **kwargs)

        monkeypatch.setattr(owner, method, called)

    spy(lease.Lease, "check", lambda *, now=False: now)
    spy(metrics.MetricWriter, "flush", lambda: True)
    spy(store.Store, "save", lambda *_: True)
    spy(clock.Clock, "restart", lambda _: True)
    overrides = ("total.steps=5", "checkpoint.every.steps=2", "evaluate_every.steps=3")
    fields = [f"--config.{field}" for field in (*overrides, "checkpoint.keep_best=0")]
    assert cli.train(recipe, tmp_path, *fields) == 0

    def saved(step: int) -> list[tuple[str, int | None]]:
        begin = [("Lease.check", None), ("MetricWriter.flush", None)]
        return [*begin, ("Store.save", step), ("Clock.restart", step)]

    # The data are opened, and the step is compiled by its first call.
    first, after_evaluation = [("Clock.restart", 0), ("Clock.restart", 1)], ("Clock.restart", 3)
    end = ("MetricWriter.flush", None)
    assert events == [*first, *saved(2), after_evaluation, *saved(4), *saved(5), end]


def test_a_run_that_is_told_to_stop_saves_first_and_evaluates_when_it_goes_on(
    recipe, tmp_path, at_batch, monkeypatch
) -> None:
    real, begun = held_out.measured, []

    def measured(*args, **kwargs):
        begun.append(store.saved_steps(tmp_path))
        return real(*args, **kwargs)

    monkeypatch.setattr(held_out, "measured", measured)
    at_batch(2, interrupt)
    every = "--config.evaluate_every.steps=2"
    assert cli.train(recipe, tmp_path, every) == 130
    assert (store.saved_steps(tmp_path), begun) == ([2], [])
    assert cli.train(recipe, tmp_path, every) == 0
    assert evaluated(tmp_path) == [2, 4, 6]


def test_an_evaluation_that_was_late_may_still_be_the_best(
    recipe, tmp_path, at_batch, monkeypatch
) -> None:
    """Its checkpoint was saved without metrics, and then gets them."""
    real, calls = held_out.measured, []

    def worse_each_time(*args, **kwargs):
        calls.append(0)
        return real(*args, **kwargs) | {"top1": 1 - 0.01 * len(calls)}

    monkeypatch.setattr(held_out, "measured", worse_each_time)
    at_batch(2, interrupt)
    fields = ("--config.evaluate_every.steps=2", "--config.checkpoint.keep_last=1")
    assert cli.train(recipe, tmp_path, *fields) == 130
    assert not (tmp_path / "checkpoints/2/metrics").exists()
    assert cli.train(recipe, tmp_path, *fields) == 0
    assert store.saved_steps(tmp_path) == [2, 6], "the best and the last"
    assert (tmp_path / "checkpoints/2/metrics").exists()


@pytest.mark.parametrize("file", ["metrics", "checksums.json"])
def test_a_kill_while_a_checkpoint_gets_its_metrics_loses_nothing(
    recipe, tmp_path, at_batch, file
) -> None:
    """It is SIGKILL, before one of the two files is written, in the run's only checkpoint."""
    workdir = tmp_path / "run"
    at_batch(2, interrupt)
    every = "--config.evaluate_every.steps=2"
    assert cli.train(recipe, workdir, every) == 130
    before = runs.arrays(workdir)
    program = (*cli.PYTHON, "-c", KILLED)
    job = ("train", "--config", recipe, "--workdir", workdir, every)
    assert cli.process(file, *job, program=program).returncode == -signal.SIGKILL
    assert (evaluated(workdir), store.saved_steps(workdir)) == ([2], [2])
    assert_same_bits(runs.arrays(workdir), before)
    assert cli.train(recipe, workdir, every) == 0
    assert evaluated(workdir) == [2, 4, 6]
    assert_same_bits(runs.arrays(workdir, step=2), before)


def test_a_late_evaluation_that_is_not_the_best_is_made_once(recipe, tmp_path, at_batch) -> None:
    fields = ("--config.total.steps=2", "--config.checkpoint.keep_best=0")
    at_batch(2, interrupt)
    assert cli.train(recipe, tmp_path, *fields) == 130
    assert cli.train(recipe, tmp_path, *fields) == 0
    after = runs.listing(tmp_path)
    assert cli.train(recipe, tmp_path, *fields) == 0
    assert (evaluated(tmp_path), runs.listing(tmp_path)) == ([2], after)


@pytest.fixture
def after_evaluation(monkeypatch):
    """`after_evaluation(step, act)` calls `act` when the evaluation after a step is reported."""

    def patch(wanted, act) -> None:
        real = reporting.Reporter.evaluated

        def evaluated(self, step, metrics) -> None:
            real(self, step, metrics)
            if step == wanted:
                act()

        monkeypatch.setattr(reporting.Reporter, "evaluated", evaluated)

    return patch


def test_the_checkpoints_of_a_run_that_was_stopped_are_those_of_one_that_was_not(
    recipe, tmp_path, at_batch, after_evaluation, monkeypatch
) -> None:
    """A late evaluation that is the second best counts among the best ones."""
    real, calls = held_out.measured, []

    def worse_each_time(*args, **kwargs):
        calls.append(0)
        return real(*args, **kwargs) | {"top1": 1 - 0.01 * len(calls)}

    monkeypatch.setattr(held_out, "measured", worse_each_time)
    fields = ["--config.evaluate_every.steps=2", "--config.checkpoint.every.steps=2"]
    fields += ["--config.checkpoint.keep_last=1", "--config.checkpoint.keep_best=2"]
    assert cli.train(recipe, tmp_path / "straight", *fields) == 0
    after_evaluation(2, lambda: at_batch(2, interrupt))
    assert cli.train(recipe, tmp_path / "stopped", *fields) == 130
    assert cli.train(recipe, tmp_path / "stopped", *fields) == 0
    kept = [store.saved_steps(tmp_path / name) for name in ("straight", "stopped")]
    assert kept == [[2, 4, 6]] * 2
    assert evaluated(tmp_path / "stopped") == [2, 4, 6]


def test_a_step_that_was_evaluated_is_saved_so_when_the_next_images_do_not_come(
    recipe, tmp_path, at_batch, after_evaluation
) -> None:
    def waits() -> None:
        interrupt()
        raise Interrupted("the next images are not ready")

    after_evaluation(2, lambda: at_batch(1, waits))
    fields = ("--config.evaluate_every.steps=2", "--config.checkpoint.keep_best=0")
    assert cli.train(recipe, tmp_path, *fields) == 130
    assert store.saved_steps(tmp_path) == [2]
    assert cli.train(recipe, tmp_path, *fields) == 0
    assert evaluated(tmp_path) == [2, 4, 6]


def test_a_run_that_stops_while_it_waits_for_images_saves_no_step_twice(
    recipe, tmp_path, at_batch, capsys
) -> None:
    def waits() -> None:
        interrupt()
        raise Interrupted("the next images are not ready")

    at_batch(3, waits)
    assert cli.train(recipe, tmp_path, "--config.checkpoint.every.steps=2") == 130
    assert "stopped after step 2 of 6 and saved" in capsys.readouterr().err
    assert store.saved_steps(tmp_path) == [2]


def test_an_evaluation_that_is_not_finite_ends_the_run_before_it_is_saved(
    recipe, tmp_path, monkeypatch, capsys
) -> None:
    real = held_out.measured

    def infinite(*args, **kwargs):
        return real(*args, **kwargs) | {"loss": float("inf")}

    monkeypatch.setattr(held_out, "measured", infinite)
    assert cli.train(recipe, tmp_path, "--config.evaluate_every.steps=2") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vit_jax: eval_loss is inf at step 2: there is no checkpoint yet")
    assert (store.saved_steps(tmp_path), evaluated(tmp_path)) == ([], [])
