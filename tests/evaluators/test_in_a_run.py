"""Evaluators of a run: each with its own period, by the user's name, on runs and on files."""

import json

import pytest

from tests import cli, runs
from vit_jax.checkpoints import store

NEAR = (
    "--config.evaluators.near.kind=knn",
    "--config.evaluators.near.k=3",
    "--config.evaluators.near.train_images=64",
    "--config.evaluators.near.every.steps=2",
    "--config.evaluators.held_out.every.steps=3",
    "--config.checkpoint.metric=near/ema_top1",
)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluators") / "run"
    assert cli.train(recipe, workdir, *NEAR) == 0
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


def test_evaluate_runs_those_that_are_named(run, printed) -> None:
    found = json.loads(
        printed("evaluate", "--workdir", run, "--only", "near", "--json").splitlines()[-1]
    )
    last = [line for line in runs.lines(run) if "eval_near/top1" in line][-1]
    assert found["near/top1"] == pytest.approx(last["eval_near/top1"])
    assert "top1" not in found
    grid = [arg.replace("near", "grid") for arg in (NEAR[0], NEAR[2])]
    command = ("evaluate", "--workdir", run, *grid, "--config.evaluators.grid.k=(1, 3)")
    line = printed(*command, "--only", "grid", "--json").splitlines()[-1]
    assert json.loads(line)["grid/top1_k3"] == pytest.approx(found["near/top1"])


def test_a_file_is_judged_by_the_evaluators_of_a_recipe(
    run, recipe, tmp_path, capsys, printed
) -> None:
    file = tmp_path / "model.safetensors"
    assert cli.run("convert", run, file, "--layout", "timm") == 0
    capsys.readouterr()
    arguments = ["evaluate", "--workdir", str(file), "--config", str(recipe), *NEAR[:3]]
    found = json.loads(printed(*arguments, "--json").splitlines()[-1])
    own = json.loads(printed("evaluate", "--workdir", run, "--json").splitlines()[-1])
    assert found["top1"] == pytest.approx(own["ema_top1"], abs=2e-3)
    assert found["near/top1"] == pytest.approx(own["near/ema_top1"], abs=2e-3)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["--config.checkpoint.metric=far/top1"], "no evaluator is called 'far'"),
        (["--config.checkpoint.metric=near/loss", *NEAR[:1]], "choose one of near/top1, near/top5"),
        (
            [
                *NEAR[:1],
                "--config.evaluators.near.k=(3, 5)",
                "--config.checkpoint.metric=near/top1",
            ],
            "choose one of near/top1_k3, near/top5_k3, near/top1_k5, near/top5_k5",
        ),
        (["--config.evaluators.near.kind=nearest"], "choose one of"),
        (["--config.evaluators.near.kind=knn", "--config.evaluators.near.n=1"], "near.n"),
        (["--config.evaluators.near.kind=knn", "--config.evaluators.near.k=0"], r"k is (0,)"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(recipe, tmp_path, refused, overrides, told) -> None:
    workdir = tmp_path / "run"
    assert told in refused("train", "--config", recipe, "--workdir", workdir, *overrides)
    assert not workdir.exists()


def test_an_evaluator_that_is_not_there_is_refused(run, recipe, refused) -> None:
    error = refused("evaluate", "--workdir", run, "--only", "far")
    assert "no evaluator is called 'far': the config has held_out, near" in error
    error = refused("evaluate", "--workdir", run, "--config", recipe)
    assert "a run has its config already" in error


def test_an_evaluator_called_corrupt_is_shown_and_never_replaced(run, printed, refused) -> None:
    named = [argument.replace("near", "corrupt") for argument in NEAR[:3]]
    command = ("evaluate", "--workdir", run, *named)
    assert ": corrupt top-1 " in printed(*command, "--only", "corrupt")
    said = refused(*command, "--corrupt", "noise", folder=run)
    assert "--corrupt adds an evaluator called 'corrupt', and the config has one already" in said


def test_only_is_named_where_it_does_not_apply(run, tmp_path, refused) -> None:
    said = refused("evaluate", "--workdir", run, "--images", tmp_path, "--only", "held_out")
    assert "--only does not apply to --images: leave it out" in said
