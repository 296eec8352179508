"""Runs that become longer, and runs that start from all of another one."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from vit_jax.checkpoints import run_folder
from vit_jax.config import Config, Duration, ModelConfig
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import length, run_config, setup


def train(recipe: pathlib.Path, workdir: pathlib.Path, *overrides: str) -> int:
    return cli.train(recipe, workdir, "--config.checkpoint.every.steps=1", *overrides)


CONSTANT = "--config.schedule.decay=constant"
FOUR = "--config.total.steps=4"


@pytest.fixture(scope="module")
def four(recipe, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("length") / "four"
    assert train(recipe, workdir, CONSTANT, FOUR) == 0
    return workdir


def test_a_complete_run_that_grows_is_the_longer_run(recipe, four, tmp_path, capsys) -> None:
    """Bit for bit where the schedule does not depend on the length."""
    straight, grown = tmp_path / "straight", shutil.copytree(four, tmp_path / "grown")
    assert train(recipe, straight, CONSTANT) == 0
    assert train(recipe, grown, CONSTANT) == 0
    said = capsys.readouterr().err
    assert "config.total: the run is 6 steps long now, it was 4. The schedule follows" in said
    assert "learning rate after step 4 is 0.001, with the old length it was 0.001" in said
    assert_same_bits(runs.arrays(grown), runs.arrays(straight))
    trained = [line for line in runs.lines(grown) if "loss" in line]
    assert trained == [line for line in runs.lines(straight) if "loss" in line]
    assert run_config.read_config(grown) == run_config.read_config(straight)
    (entry,) = json.loads((grown / "history.json").read_text())["total"]
    assert (entry["step"], entry["before"]["steps"], entry["now"]["steps"]) == (4, 4, 6)


def test_the_schedule_is_that_of_the_new_length(recipe, tmp_path, capsys) -> None:
    assert train(recipe, tmp_path, FOUR) == 0
    assert train(recipe, tmp_path) == 0
    rates = [line["learning_rate"] for line in runs.lines(tmp_path) if "loss" in line]
    assert rates[4] == pytest.approx(0.5e-3 * (1 + np.cos(np.pi * 3 / 5)), rel=1e-5)
    said = capsys.readouterr().err
    assert f"the learning rate after step 4 is {rates[4]:.4g}, with the old length it was 0" in said


def test_what_a_new_length_changes_is_said_and_written_once(tmp_path) -> None:
    """Of 40 steps: an evaluation every 20, a checkpoint every 4, a cosine to 0; then of 80."""
    model, data = ModelConfig(name="Ti/16"), {"batch_size": 10}
    before = Config(
        total=Duration(epochs=4.0),
        evaluate_every=Duration(percent=50.0),
        log_every=Duration(examples=1),
        model=model,
        **data,
    )
    assert setup.lengths(before, dataset_size=100) == setup.Lengths(
        total=40, evaluate_every={"held_out": 20}, checkpoint_every=4, log_every=1
    )
    card = run_folder.Card(
        options=zoo.options("Ti/16", num_classes=2),
        class_names=("a", "b"),
        preprocessing=Preprocessing(image_size=(224, 224)),
    )
    run_config.write_run(tmp_path / "run", before, card)
    now = dataclasses.replace(before, total=Duration(steps=80), seed=5)
    change = length.change(tmp_path / "run", now, step=20, dataset_size=100)
    assert change is not None
    first, *others = change.notes
    cosine = 0.5e-3 * (1 + np.cos(np.pi / 4))
    assert "the run is 80 steps long now, it was 40" in first
    assert f"after step 20 is {cosine:.4g}, with the old length it was 0.0005" in first
    assert others == [
        "evaluation every 40 steps now, it was every 20",
        "checkpoint every 8 steps now, it was every 4",
    ]
    assert run_config.read_config(tmp_path / "run") == before, "nothing is written yet"
    for _ in range(2):  # the second as after a kill between its two files
        change.write(tmp_path / "run")
    (entry,) = json.loads((tmp_path / "run" / "history.json").read_text())["total"]
    assert (entry["step"], entry["before"]["epochs"], entry["now"]["steps"]) == (20, 4.0, 80)
    written = run_config.read_config(tmp_path / "run")
    assert written == dataclasses.replace(before, total=now.total), "its length and no more"


def test_a_run_cannot_become_shorter_than_it_is(recipe, four, capsys) -> None:
    before = runs.listing(four)
    assert train(recipe, four, CONSTANT, "--config.total.steps=3") == 2
    assert "config.total is 3 steps, but" in capsys.readouterr().err
    assert train(recipe, four, CONSTANT, "--config.batch_size=8") == 2
    assert "batch_size is 16 there and 8 here" in capsys.readouterr().err
    assert runs.listing(four) == before


ALL = "--config.init_state=all"


def test_a_branch_has_the_parameters_the_moments_and_the_average(recipe, four, tmp_path) -> None:
    """A learning rate of 0 at its first step shows what it started with.

    How the model is computed may be another, and so may the seed.
    """
    changes = ("--config.seed=7", "--config.model.unroll=2", "--config.total.steps=2")
    assert train(recipe, tmp_path, f"--config.init_from={four}", ALL, *changes) == 0
    old, new = runs.arrays(four), runs.arrays(tmp_path, step=1)
    assert new["step"] == 1
    fresh, _ = jax.random.split(jax.random.key(7))
    np.testing.assert_array_equal(new["key"], jax.random.key_data(fresh))
    counts = {name: int(array) for name, array in new.items() if name.endswith("/count")}
    assert sorted(counts.values()) == [1, 5]  # of the schedule, and of Adam's moments
    for name, array in old.items():
        if name.startswith("params/"):
            np.testing.assert_array_equal(new[name], array, err_msg=name)
        if name.startswith("ema/"):
            towards = array + np.float32(0.1) * (old["params/" + name[4:]] - array)
            assert_close(new[name], towards, rtol=1e-5, atol=1e-7, about=name)
            assert not np.array_equal(new[name], new["params/" + name[4:]]) or not array.any()
        if "/nu/" in name and array.any():
            assert np.all(new[name] >= 0.998 * array), name


def test_a_branch_keeps_its_average_whatever_resumes_it(recipe, four, tmp_path, capsys) -> None:
    """An average that was taken over has had its warm-up. The flag need not be given again."""
    warmup, start = "--config.ema_warmup=0.67", (f"--config.init_from={four}", ALL)
    assert train(recipe, tmp_path / "a", *start, warmup, CONSTANT, "--config.total.steps=2") == 0
    old, new = runs.arrays(four), runs.arrays(tmp_path / "a", step=1)
    for name, array in old.items():
        if name.startswith("ema/"):
            towards = array + np.float32(0.1) * (new["params/" + name[4:]] - array)
            assert_close(new[name], towards, rtol=1e-5, atol=1e-7, about=name)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name, flags in (("a", start), ("b", ())):
        assert train(recipe, tmp_path / name, *flags, warmup, CONSTANT, FOUR) == 0
    assert_same_bits(runs.arrays(tmp_path / "a"), runs.arrays(tmp_path / "b"))
    assert run_config.read_config(tmp_path / "b").init_state == "all"
    assert "is not used" not in capsys.readouterr().err
    other = ("--config.init_from=other", warmup, CONSTANT, "--config.total.steps=5")
    assert train(recipe, tmp_path / "b", *other) == 0
    said = "config.init_from other (parameters) is not used: this run exists, and it started from"
    assert f"{said} {four} (all)" in capsys.readouterr().err


def test_a_branch_begins_the_schedule_of_the_decay_anew(recipe, tmp_path) -> None:
    """After a run whose decay rose to its end, the decay is small again."""
    names = ("schedule=cosine", "end=0.4")
    rising = [f"--config.optimizer.weight_decay_{name}" for name in names]
    short = "--config.total.steps=2"
    assert train(recipe, tmp_path / "run", short, *rising) == 0
    branch = (f"--config.init_from={tmp_path / 'run'}", ALL, short)
    assert train(recipe, tmp_path / "branch", *branch, *rising) == 0
    new = runs.arrays(tmp_path / "branch", step=1)
    counts = [int(array) for name, array in new.items() if name.endswith("/count")]
    assert sorted(counts) == [1, 1, 3]  # of the two schedules, and of Adam's moments


def test_a_branch_reads_of_the_other_config_only_its_optimizer(recipe, four, tmp_path) -> None:
    """What the model is stands in model.json; another version may have written the rest."""
    other = tmp_path / "other"
    shutil.copytree(four, other)
    config = json.loads((other / "config.json").read_text())
    config |= {"objective": {"name": "of a later version"}, "ema": 0.0}
    (other / "config.json").write_text(json.dumps(config))
    short = "--config.total.steps=2"
    for name, origin in (("one", four), ("two", other)):
        assert train(recipe, tmp_path / name, f"--config.init_from={origin}", ALL, short) == 0
    assert_same_bits(runs.arrays(tmp_path / "one"), runs.arrays(tmp_path / "two"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("--config.image_size=42,42", "another model (image_size is (28, 28) there and (42, 42)"),
        (
            "--config.optimizer.name=sgd",
            "another optimizer (optimizer.name is 'adamw' there and 'sgd'",
        ),
        (
            "--config.optimizer.moment_dtype=bfloat16",
            "another optimizer (optimizer.moment_dtype is 'float32'",
        ),
    ],
)
def test_a_branch_that_does_not_fit_is_refused(
    recipe, four, tmp_path, capsys, override, said
) -> None:
    workdir = tmp_path / "branch"
    assert train(recipe, workdir, f"--config.init_from={four}", ALL, override) == 2
    assert said in capsys.readouterr().err
    assert not workdir.exists()


def test_a_branch_of_a_file_or_of_nothing_is_refused(recipe, four, tmp_path, capsys) -> None:
    exported = tmp_path / "model.npz"
    assert cli.run("convert", four, exported, "--layout", "vit_jax") == 0
    workdir = tmp_path / "branch"
    assert train(recipe, workdir, f"--config.init_from={exported}", ALL) == 2
    assert "is not a run: a released file holds parameters only" in capsys.readouterr().err
    assert train(recipe, workdir, ALL) == 2
    assert "name the run to start from" in capsys.readouterr().err
    without = tmp_path / "without"
    assert train(recipe, without, "--config.ema=0.0", "--config.total.steps=2") == 0
    assert train(recipe, workdir, f"--config.init_from={without}", ALL) == 2
    assert "has no average to start from" in capsys.readouterr().err
    assert not workdir.exists()
