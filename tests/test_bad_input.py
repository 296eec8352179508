"""What cannot be done is refused in one line that names it, with exit code 2, nothing written."""

import os
import pathlib
import shutil
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from tests import cli, runs
from vit_jax.training import metrics, window
from vit_jax.workdir import lines, sessions

Refused = Callable[..., str]


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> pathlib.Path:
    """A run that is complete, not to be changed: copy it."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert cli.train(recipe, workdir) == 0
    return workdir


@pytest.fixture
def run(finished, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lerning_rate=1", "config.optimizer.lerning_rate: did you mean 'learning_rate'"),
        ("optimiser.name=sgd", "config.optimiser: did you mean 'optimizer'"),
        ("batch_size=many", "--config.batch_size=many: the value must be of type int"),
        ("mesh=8", "--config.mesh=8: set its fields one by one: mesh.data"),
        ("image_size=large", "config.image_size[0] must be int, got 'large'"),
        (
            "data.source=imagenet",
            "choose one of 'embedded', 'image_folder', 'image_list', 'manifest', 'python', 'tfds'",
        ),
        ("model.name=Ti17", "unknown model 'Ti17': did you mean 'Ti/16'"),
        ("data.source=tfds", "config.data.name is empty: name a dataset"),
        ("data.train_split=all", "no split 'all': choose train or test"),
        ("data.eval_split=val", "no split 'val': choose train or test"),
        ("mesh.data=3", "mesh {data: 3, fsdp: 1, tensor: 1} does not divide"),
        ("batch_size=20", "config.batch_size 20 does not divide over the mesh: data 8 x fsdp 1"),
        ("optimizer.accumulate=3", "config.batch_size 16 does not divide into"),
        ("image_size=28,30", "image width 30 is not a multiple of the patch of 14 pixels: use 28"),
        ("model.num_heads=3", "vit_jax: config.model.width 16 does not divide into 3 heads"),
        ("model.registers=-1", "vit_jax: config.model.registers is -1: it must be at least 0"),
        ("total.steps=0", "config.total needs steps, epochs or examples"),
        ("total.percent=4", "config.total needs steps, epochs or examples"),
        (
            "optimizer.momentum=0.5",
            "config.optimizer.momentum belongs to sgd, lars and muon; config.optimizer.na",
        ),
        ("data.crop_area=0.5,1", "config.data.crop_area belongs to inception and random_resized"),
        (
            "data.path=.",
            "image_list, manifest and tfds; config.data.source is 'embedded'",
        ),
        ("schedule.warmup.steps=7", "config.schedule.warmup is 7 steps"),
        ("optimizer.frozen=nothing", "config.optimizer.frozen: 'nothing' matches no parameter"),
        ("optimizer.b1=1.5", "config.optimizer.b1 is 1.5: it must be in [0, 1)"),
        ("checkpoint.metric=accuracy", "choose one of top1"),
        ("data.crop_pct=0", "config.data.crop_pct is 0.0: it must be in (0, 1]"),
        ("data.max_bad=2", "config.data.max_bad is 2.0: it must be at most 1"),
        ("data.shift=-1", "config.data.shift is -1: it cannot be negative"),
        ("init_from=nowhere.npz", "no checkpoint at nowhere.npz"),
    ],
)
def test_a_wrong_field_or_value(recipe, tmp_path, refused: Refused, override, said) -> None:
    workdir = tmp_path / "run"
    arguments = ["train", "--config", recipe, "--workdir", workdir, f"--config.{override}"]
    assert said in refused(*arguments, folder=workdir)


def test_two_mistakes_of_a_command_line(recipe, tmp_path, refused: Refused) -> None:
    arguments = ("train", "--config", recipe, "--workdir", tmp_path)
    units = ("--config.total.examples=4", "--config.total.steps=3")
    said = refused(*arguments, *units, folder=tmp_path)
    assert "config.total is given in steps and examples: keep one" in said
    crop = ("--config.data.crop_area=0.5,2", "--config.data.crop=inception")
    said = refused(*arguments, *crop, folder=tmp_path)
    assert "config.data.crop_area is (0.5, 2.0)" in said


def test_an_evaluator_is_named_with_its_field_or_with_what_it_lacks(
    recipe, tmp_path, refused: Refused
) -> None:
    near = ["train", "--config", recipe, "--workdir", tmp_path, "--config.evaluators.near.kind=knn"]
    said = refused(*near, "--config.evaluators.near.k=0", folder=tmp_path)
    assert said.startswith("vit_jax: config.evaluators.near.k is (0,): it must be at least 1")
    said = refused(*near, "--config.evaluators.near.k=100000", folder=tmp_path)
    assert said.startswith("vit_jax: evaluator near: kNN needs k = 100000 neighbours")


def test_an_averaged_metric_without_an_average(recipe, tmp_path, refused: Refused) -> None:
    overrides = ["--config.ema=0", "--config.checkpoint.metric=ema_top1"]
    said = refused("train", "--config", recipe, "--workdir", tmp_path, *overrides, folder=tmp_path)
    assert "'ema_top1', but the run has no average: set config.ema" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            runs.RECIPE.replace("config.ema =", "config.emma ="),
            ", line 16: unknown config field config.emma: did you mean 'ema'?",
        ),
        (
            runs.RECIPE.replace("= 16", "= '16'", 1),
            ", line 8: config.batch_size must be int, got '16'",
        ),
        (runs.RECIPE.replace("ema = 0.9", "ema = 2.0"), ", line 16: config.ema is 2.0"),
        (runs.RECIPE.replace("default_config()", "defaults()"), ", line 6: NameError"),
        ("raise RuntimeError('boom')", ", line 1: RuntimeError: boom"),
        ("import sys\nsys.exit(3)\n", ", line 2: SystemExit: 3"),
        (runs.RECIPE.replace("return config", "return"), "get_config() returns None"),
        (runs.RECIPE.replace("def get_config()", "def get_config("), "SyntaxError"),
        (
            runs.RECIPE.replace("total.epochs = 0.0", "total.epochs = 2.0"),
            "config.total is given in steps and epochs: keep one",
        ),
        (
            runs.RECIPE.replace("config.ema =", "config.schedule.timescale.steps ="),
            "config.schedule.timescale belongs to rsqrt; config.schedule.decay is 'cosine'",
        ),
        ("", "AttributeError: module 'recipe' has no attribute 'get_config'"),
    ],
)
def test_a_recipe_with_a_mistake(tmp_path, refused: Refused, text, said) -> None:
    path, workdir = runs.write_recipe(tmp_path, text), tmp_path / "run"
    error = refused("train", "--config", path, "--workdir", workdir, folder=workdir)
    assert said in error
    assert str(path) in error


def test_a_recipe_that_is_named_from_its_folder_has_the_line_too(
    tmp_path, monkeypatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, said in (("(", "SyntaxError: '(' was never closed"), ("1 / 0", "ZeroDivisionError")):
        (tmp_path / "recipe.py").write_text("import math\n" + text)
        error = refused("config", "--config", "recipe.py", folder=tmp_path)
        assert error.startswith(f"vit_jax: recipe.py, line 2: {said}")


def test_no_recipe(tmp_path, refused: Refused) -> None:
    path, workdir = tmp_path / "gone.py", tmp_path / "run"
    said = refused("train", "--config", path, "--workdir", workdir, folder=workdir)
    assert f"no recipe at {path}" in said


def image_folder(root: pathlib.Path, *classes: str) -> pathlib.Path:
    root.mkdir()
    for number, name in enumerate(classes):
        (root / name).mkdir()
        for index in range(4):
            pixels = np.full((30, 40, 3), 10 * number + index, np.uint8)
            assert cv2.imwrite(str(root / name / f"{index}.png"), pixels)
    return root


@pytest.mark.parametrize(
    ("classes", "said"), [((), "has no class folders"), (("cat",), "a single class folder, cat")]
)
def test_an_image_folder_of_less_than_two_classes(
    recipe, tmp_path, refused: Refused, classes, said
) -> None:
    root, workdir = image_folder(tmp_path / "images", *classes), tmp_path / "run"
    data = ["--config.data.source=image_folder", f"--config.data.path={root}"]
    error = refused("train", "--config", recipe, "--workdir", workdir, *data, folder=workdir)
    assert said in error
    assert str(root) in error


def test_a_tfds_dataset_that_is_not_prepared(recipe, tmp_path, refused: Refused) -> None:
    workdir = tmp_path / "run"
    data = ["--config.data.source=tfds", f"--config.data.path={tmp_path}"]
    for name, remedy in (("mnist", "tfds build mnist"), ("mnits", "did you mean 'mnist'?")):
        arguments = ["train", "--config", recipe, "--workdir", workdir, *data]
        assert remedy in refused(*arguments, f"--config.data.name={name}", folder=workdir)


def test_too_many_broken_images(recipe, tmp_path, capsys) -> None:
    root, workdir = image_folder(tmp_path / "images", *"abcdefghij"), tmp_path / "run"
    broken = root / "c" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    data = ["--config.data.source=image_folder", f"--config.data.path={root}"]
    assert cli.train(recipe, workdir, *data) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vit_jax: 1 of 40 images are broken, more than the allowed share 0.001")
    assert "with a larger --config.data.max_bad" in last
    assert str(broken) in last
    assert cli.train(recipe, workdir, *data, "--config.data.max_bad=0.1") == 0
    assert runs.lines(workdir)[-2]["bad_images"] == 1
    (root / "d" / "1.png").write_bytes(b"")
    assert cli.train(recipe, tmp_path / "two", *data, "--config.data.max_bad=0.1") == 0
    assert runs.lines(tmp_path / "two")[-2]["bad_images"] == 2


def test_a_checkpoint_of_another_model(recipe, run, tmp_path, refused: Refused) -> None:
    workdir = tmp_path / "new"
    arguments = ["train", "--config", recipe, "--workdir", workdir, f"--config.init_from={run}"]
    said = refused(*arguments, "--config.model.width=32", folder=workdir)
    assert "the checkpoint is of another model" in said
    assert "encoder/blocks/norm1/scale is (2, 16), the model has (2, 32)" in said


def test_a_workdir_of_another_config(recipe, run, refused: Refused) -> None:
    overrides = ["--config.optimizer.learning_rate=0.5"]
    said = refused("train", "--config", recipe, "--workdir", run, *overrides, folder=run)
    assert "holds a run with another config (optimizer.learning_rate is 0.001 there and 0.5" in said
    assert "use another --workdir" in said


def test_a_workdir_that_is_a_file(recipe, tmp_path, refused: Refused) -> None:
    workdir = tmp_path / "run"
    workdir.write_text("mine")
    said = refused("train", "--config", recipe, "--workdir", workdir, folder=tmp_path)
    assert f"cannot write to the workdir {workdir}" in said


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
def test_a_damaged_checkpoint(recipe, run, refused: Refused, command) -> None:
    """Half of its largest file is missing: as on a disk that was full."""
    files = [path for path in (run / "checkpoints" / "6").rglob("*") if "/d/" in str(path)]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    arguments = {
        "train": ["--config", recipe],
        "evaluate": [],
        "predict": ["image.png"],
    }[command]
    said = refused(command, "--workdir", run, *arguments, folder=run)
    assert f"all checkpoints in {run / 'checkpoints'} are damaged (6: " in said


@pytest.mark.parametrize("name", ["config.json", "model.json"])
def test_a_damaged_description(recipe, run, refused: Refused, name) -> None:
    (run / name).write_text((run / name).read_text()[:100])
    arguments = ["--config", recipe]
    assert f"{run / name} is damaged" in refused("train", "--workdir", run, *arguments, folder=run)
    assert f"{run / name} is damaged" in refused("evaluate", "--workdir", run, folder=run)


@pytest.mark.parametrize(
    ("command", "message"),
    [(["evaluate"], "is not a run"), (["predict", "image.png"], "has no model.json of a run")],
)
def test_a_folder_that_is_no_run(tmp_path, refused: Refused, command, message) -> None:
    assert message in refused(*command, "--workdir", tmp_path, folder=tmp_path)


def test_a_run_without_a_checkpoint(run, refused: Refused) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "no finished checkpoint" in refused("evaluate", "--workdir", run, folder=run)


def test_a_step_that_is_not_kept(run, refused: Refused) -> None:
    said = refused("evaluate", "--workdir", run, "--step", "7", folder=run)
    assert "no step 7" in said
    assert "there are [6]" in said


def test_a_step_that_is_no_number(run, refused) -> None:
    said = refused("evaluate", "--workdir", run, "--step", "last")
    assert "'last': give latest, best, or the number of a step" in said


@pytest.mark.parametrize(
    "name",
    [
        *("model.json", "config.json", "data.json", "lease.json"),
        "checkpoints/6/checksums.json",
    ],
)
def test_a_pipe_in_place_of_a_file_of_a_run_is_refused(recipe, run, capsys, name) -> None:
    """Who opens a pipe waits for ever."""
    _pipe(run / name)
    assert cli.train(recipe, run) == 2
    error = capsys.readouterr().err
    assert pathlib.Path(name).name in error and "not a file" in error and error.count("\n") == 1


def test_a_pipe_in_place_of_a_file_that_a_run_can_lack_is_not_opened(run) -> None:
    _pipe(run / sessions.FILE)
    _pipe(run / "tensorboard" / "events.out.tfevents.0")
    _pipe(run / window.FILE)
    assert sessions.read(run) == []
    window.restored(run, step=1)
    other = run / "another"
    other.mkdir()
    _pipe(other / "metrics.jsonl")
    with pytest.raises(ValueError, match="metrics.jsonl cannot be read: it is not a file"):
        lines.read(other)
    with metrics.MetricWriter(run, start_step=1) as writer:
        writer.write(2, {"loss": 1.0})


def _pipe(path: pathlib.Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
