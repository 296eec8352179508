"""Evaluators of a run: each with its own period, by the user's name, on runs and on files."""

import json

import pytest

from tests import runs
from vit_jax.__main__ import main
from vit_jax.checkpoints import store

NEAR = (
    "--config.evaluators.near.kind=knn",
    "--config.evaluators.near.k=3",
    "--config.evaluators.near.train_images=64",
    "--config.evaluators.near.every.steps=2",
    "--config.evaluators.held_out.every.steps=3",
    "--config.checkpoint.metric=near/ema_top1",
)


def train(recipe, workdir, *overrides: str) -> int:
    return main(["train", "--config", str(recipe), "--workdir", str(workdir), *overrides])


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluators") / "run"
    assert train(recipe, workdir, *NEAR) == 0
    return workdir


def test_every_evaluator_has_its_own_period_and_names(run) -> None:
    lines = runs.lines(run)
    near = [line["step"] for line in lines if "eval_near/top1" in line]
    held_out = [line["step"] for line in lines if "eval_top1" in line]
    assert near == [2, 4, 6]
    assert held_out == [3, 6], "a step has only what was measured at it"
    last = next(line for line in lines if line["step"] == 6 and "eval_top1" in line)
    assert {"eval_near/top1", "eval_near/top5", "eval_near/ema_top1", "eval_near/count"} <= set(
        last
    )
    assert last["eval_near/count"] == 5000
    assert 0.1 < last["eval_near/top1"] <= 1


def test_the_best_checkpoint_is_that_of_the_metric_that_is_named(run) -> None:
    by_step = {
        line["step"]: line["eval_near/ema_top1"]
        for line in runs.lines(run)
        if "eval_near/ema_top1" in line
    }
    best = max(by_step.values())
    kept = store.saved_steps(run)
    assert any(by_step.get(step) == best for step in kept)


def test_evaluate_runs_those_that_are_named(run, capsys) -> None:
    assert main(["evaluate", "--workdir", str(run), "--only", "near", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    last = [line for line in runs.lines(run) if "eval_near/top1" in line][-1]
    assert found["near/top1"] == pytest.approx(last["eval_near/top1"])
    assert "top1" not in found


def test_a_file_is_judged_by_the_evaluators_of_a_recipe(run, recipe, tmp_path, capsys) -> None:
    file = tmp_path / "model.safetensors"
    assert main(["convert", str(run), str(file), "--layout", "timm"]) == 0
    capsys.readouterr()
    arguments = ["evaluate", "--workdir", str(file), "--config", str(recipe), *NEAR[:3]]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert main(["evaluate", "--workdir", str(run), "--json"]) == 0
    own = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["top1"] == pytest.approx(own["ema_top1"], abs=2e-3)
    assert found["near/top1"] == pytest.approx(own["near/ema_top1"], abs=2e-3)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["--config.checkpoint.metric=far/top1"], "no evaluator is called 'far'"),
        (["--config.checkpoint.metric=near/loss", *NEAR[:1]], "choose one of near/top1, near/top5"),
        (["--config.evaluators.near.kind=nearest"], "choose one of"),
        (["--config.evaluators.near.kind=knn", "--config.evaluators.near.n=1"], "near.n"),
        (["--config.evaluators.near.kind=knn", "--config.evaluators.near.k=0"], "k is 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(recipe, tmp_path, capsys, overrides, told) -> None:
    workdir = tmp_path / "run"
    assert train(recipe, workdir, *overrides) == 2
    assert told in capsys.readouterr().err
    assert not workdir.exists()


def test_an_evaluator_that_is_not_there_is_refused(run, recipe, capsys) -> None:
    assert main(["evaluate", "--workdir", str(run), "--only", "far"]) == 2
    assert "no evaluator is called 'far': the config has held_out, near" in capsys.readouterr().err
    assert main(["evaluate", "--workdir", str(run), "--config", str(recipe)]) == 2
    assert "a run has its config already" in capsys.readouterr().err
