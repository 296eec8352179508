"""What a run writes and keeps, and how it stops where it diverges."""

import pathlib

import pytest

from tests import cli, runs
from vit_jax.checkpoints import run_folder, store
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import run_config


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> pathlib.Path:
    """Six steps with everything reported: checkpoints at 1 ... 6, evaluations at 2, 4, 6."""
    workdir = tmp_path_factory.mktemp("loop") / "run"
    overrides = (
        "--config.checkpoint.every.steps=1",
        "--config.evaluate_every.steps=2",
        "--config.checkpoint.metric=ema_loss",
        "--config.data.interpolation=bilinear_antialias",
        "--config.data.eval_kernel=bicubic_antialias",
        "--config.data.eval_fit=squash",
        "--config.data.eval_crop=0.9",
        "--config.data.mean=0.4,0.5,0.6",
    )
    assert cli.train(recipe, workdir, *overrides) == 0
    return workdir


def test_every_step_and_every_evaluation_has_one_line(run) -> None:
    lines = runs.lines(run)
    trained = [line for line in lines if "loss" in line]
    evaluated = [line for line in lines if "eval_loss" in line]
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in evaluated] == [2, 4, 6]
    values = {"loss", "loss_last", "grad_norm", "param_norm", "learning_rate"}
    assert trained[0].keys() == {"step", *values}
    assert [line["learning_rate"] for line in trained][:2] == [0.0, pytest.approx(1e-3)]
    measured = {
        f"eval_{ema}{name}" for ema in ("", "ema_") for name in ("top1", "top5", "loss", "ece")
    }
    assert evaluated[0].keys() == {"step", "eval_count", *measured}


def test_the_card_says_how_the_run_was_evaluated(run) -> None:
    """Not how it was trained; with the value range of both."""
    assert run_folder.read_card(run).preprocessing == Preprocessing(
        image_size=(28, 28),
        crop_pct=0.9,
        interpolation="bicubic_antialias",
        fit="squash",
        mean=(0.4, 0.5, 0.6),
        std=(0.5, 0.5, 0.5),
    )


def test_the_last_two_checkpoints_and_the_best_are_kept(run) -> None:
    losses = {n["step"]: n["eval_ema_loss"] for n in runs.lines(run) if "eval_loss" in n}
    best = min(losses, key=losses.__getitem__)
    assert store.saved_steps(run) == sorted({5, 6, best})
    with store.Store(run, run_config.read_config(run).checkpoint, read_only=True) as saved:
        assert saved.find("best") == best
        assert saved.find("latest") == 6


def test_tensorboard_gets_the_same_numbers(run) -> None:
    (events,) = (run / "tensorboard").glob("events.out.tfevents.*")
    written = events.read_bytes()
    tags = ("train/loss", "train/learning_rate", "time/images_per_second", "eval/top1")
    for tag in (*tags, "eval/ema_loss"):
        assert tag.encode() in written


def test_a_run_shorter_than_the_profile_still_writes_one(recipe, tmp_path) -> None:
    """As short as may be: all that Python calls meanwhile is recorded, at a GB for each minute."""
    assert cli.train(recipe, tmp_path, "--config.total.steps=2", "--profile") == 0
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 0


def test_the_period_of_logging_counts_steps_and_the_last_is_always_logged(
    recipe, run, tmp_path, capsys
) -> None:
    assert cli.train(recipe, tmp_path, "--config.log_every.steps=4") == 0
    fourth, last, _ = lines = runs.lines(tmp_path)
    assert [line["step"] for line in lines] == [4, 6, 6]
    printed = capsys.readouterr()
    assert "step 4/6: " in printed.err
    assert " images/s, 00:00 left, learning_rate " in printed.err
    assert printed.out.startswith(f"{tmp_path}: top-1 ")
    assert store.saved_steps(tmp_path) == [6]


def test_a_worse_evaluation_is_not_saved_as_the_best(recipe, tmp_path) -> None:
    """With no other checkpoints due: only improvements, and the end."""
    overrides = ("--config.evaluate_every.steps=1", "--config.checkpoint.keep_best=1")
    assert cli.train(recipe, tmp_path, *overrides) == 0
    scores = {n["step"]: n["eval_top1"] for n in runs.lines(tmp_path) if "eval_loss" in n}
    records = [s for s in scores if all(scores[s] > scores[e] for e in scores if e < s)]
    assert len(records) < 6
    assert store.saved_steps(tmp_path) == sorted({*sorted({*records, 6})[-2:], records[-1]})


def test_a_run_that_diverges_keeps_the_last_good_checkpoint_and_says_how_to_go_on(
    recipe, tmp_path, capsys
) -> None:
    """The rate of step 1 is 0 (warm-up); step 2 throws the parameters out of float32."""
    overrides = (
        "--config.optimizer.learning_rate=1e30",
        "--config.optimizer.clip_norm=0",
        "--config.checkpoint.every.steps=1",
    )
    workdir = tmp_path / "run"
    for _ in range(2):  # a second try goes on from that checkpoint, to the same end
        assert cli.train(recipe, workdir, *overrides) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("vit_jax: param_norm is inf at step 2: checkpoint 1 is kept")
        assert store.saved_steps(workdir) == [1]
        assert [line["step"] for line in runs.lines(workdir)] == [1]
    advised = [word for word in last.replace(";", "").split() if word.startswith(("--", "/"))]
    new, rest = advised[advised.index("--workdir") + 1], advised[advised.index("--workdir") + 2 :]
    assert rest[-1] == "--config.optimizer.learning_rate=3.33e+29"
    rest[-1] = "--config.optimizer.learning_rate=1e-3"  # three times lower does not help here
    assert cli.train(recipe, pathlib.Path(new), *overrides[1:], *rest) == 0
    assert store.saved_steps(new)[-1] == 6


def test_a_run_that_diverges_at_once_may_begin_anew_in_its_workdir(
    recipe, tmp_path, capsys
) -> None:
    overrides = ("--config.optimizer.learning_rate=1e30", "--config.schedule.warmup.steps=0")
    assert cli.train(recipe, tmp_path, *overrides) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vit_jax: param_norm is inf at step 1: there is no checkpoint yet")
    assert "run the same command with a lower rate" in last
    assert store.saved_steps(tmp_path) == []
    assert cli.train(recipe, tmp_path) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path} holds a run that saved nothing: it starts again" in said
    assert "optimizer.learning_rate is 1e+30 there and 0.001 here" in said
    assert run_config.read_config(tmp_path).optimizer.learning_rate == 1e-3
    assert [line["step"] for line in runs.lines(tmp_path)] == [1, 2, 3, 4, 5, 6, 6]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["image_size=512,512", "model.patch_size=1,1"], "--config.optimizer.accumulate=2"),
        (
            ["eval_batch_size=100000", "model.patch_size=1,1", "model.width=256"],
            "--config.eval_batch_size=50000",
        ),
    ],
)
def test_too_little_memory_is_one_line_that_says_what_helps(
    recipe, tmp_path, capsys, fields, said
) -> None:
    overrides = [f"--config.{field}" for field in ("total.steps=2", "model.depth=1", *fields)]
    assert cli.train(recipe, tmp_path, *overrides) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vit_jax: out of memory on ")
    assert "Ti/14 at " in last
    assert said in last
