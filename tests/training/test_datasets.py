"""A run goes on with the data it began with, or says what changed; evaluation knows the classes."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.checkpoints import run_folder
from vit_jax.config import Duration
from vit_jax.training import datasets, run_config


def save(folder: pathlib.Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode()))
        PIL.Image.fromarray(rng.integers(0, 256, (30, 28, 3), np.uint8)).save(folder / name)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> pathlib.Path:
    text = runs.RECIPE.replace(
        "    return config", "    config.data.source = 'image_folder'\n    return config"
    )
    return runs.write_recipe(tmp_path_factory.mktemp("recipe"), text)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("images")
    names = ("bee", "cat", "dog")
    save(root, *(f"{s}/{n}/{i}.png" for s in ("train", "val") for n in names for i in range(4)))
    return root


OVERRIDES = ("--config.total.steps=4", "--config.checkpoint.every.steps=2", "--config.ema=0")


def train(recipe: pathlib.Path, workdir: pathlib.Path, data: pathlib.Path, *more: str) -> int:
    return cli.train(
        recipe,
        workdir,
        f"--config.data.path={data}",
        *OVERRIDES,
        *more,
    )


@pytest.fixture(scope="module")
def finished(recipe, images, tmp_path_factory) -> pathlib.Path:
    """A run that nothing interrupted."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert train(recipe, workdir, images, "--config.evaluate_every.steps=2") == 0
    return workdir


@pytest.fixture(scope="module")
def stopped(finished, tmp_path_factory) -> pathlib.Path:
    """The same with two of its four steps, not to be changed: copy it."""
    workdir = shutil.copytree(finished, tmp_path_factory.mktemp("stopped") / "run")
    shutil.rmtree(workdir / "checkpoints" / "4")
    return pathlib.Path(workdir)


@pytest.fixture
def run(stopped, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(stopped, tmp_path / "run"))


@pytest.fixture
def data(images, tmp_path) -> pathlib.Path:
    """The images of the run, in another place, free to be changed."""
    return pathlib.Path(shutil.copytree(images, tmp_path / "data"))


def record(workdir: pathlib.Path) -> dict:
    return json.loads((workdir / "data.json").read_text())


def test_a_run_records_what_its_splits_hold(stopped) -> None:
    splits = record(stopped)["splits"]
    for split in ("train", "eval"):
        assert splits[split]["examples"] == 12
        assert splits[split]["class_names"] == ["bee", "cat", "dog"]
        assert {p["examples"] for p in splits[split]["parts"].values()} == {4}
    assert splits["train"]["digest"] != splits["eval"]["digest"]


def test_the_same_images_in_another_place_go_on_with_the_same_bits(
    recipe, run, data, finished, capsys
) -> None:
    """The README's promise, for a folder that was moved."""
    before = (run / "data.json").read_bytes()
    assert train(recipe, run, data) == 0
    assert "note" not in capsys.readouterr().err
    assert (run / "data.json").read_bytes() == before
    assert_same_bits(runs.arrays(run), runs.arrays(finished))


def first_class(data: pathlib.Path) -> None:
    save(data, "train/ant/0.png", "val/ant/0.png")


def renamed_class(data: pathlib.Path) -> None:
    for split in ("train", "val"):
        (data / split / "dog").rename(data / split / "wolf")


def more_images(data: pathlib.Path) -> None:
    save(data, "train/cat/7.png", "train/cat/8.png")


def other_evaluation(data: pathlib.Path) -> None:
    (data / "val/cat/0.png").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first_class, "train: class added: ant"),
        (renamed_class, "train: class renamed: dog -> wolf"),
        (
            more_images,
            "train: 2 images added: cat/7.png, cat/8.png; 14 images in total now, 12 before",
        ),
        (other_evaluation, "eval: 1 image removed: cat/0.png"),
    ],
)
def test_a_resume_on_other_data_is_refused_and_says_what_changed(
    recipe, run, data, capsys, change, said
) -> None:
    change(data)
    before = runs.listing(run)
    assert train(recipe, run, data) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert "--config.data.accept_changes=true" in error
    assert runs.listing(run) == before


def test_what_is_accepted_is_said_and_recorded(recipe, run, data, capsys) -> None:
    more_images(data)
    renamed_class(data)
    accept = "--config.data.accept_changes=true"
    assert train(recipe, run, data, accept) == 0
    error = capsys.readouterr().err
    assert "note: the data changed, which you accept: train: class renamed: dog -> wolf" in error
    (change,) = record(run)["accepted"]
    assert change["step"] == 2
    assert change["changes"]["eval"] == ["class renamed: dog -> wolf"]
    assert (change["was"]["train"]["examples"], change["is"]["train"]["examples"]) == (12, 14)
    assert record(run)["splits"]["train"]["examples"] == 14
    assert run_folder.read_card(run).class_names == ("bee", "cat", "wolf")
    assert train(recipe, run, data) == 0, "what was accepted once is the data of the run"
    assert "accept" not in capsys.readouterr().err


def test_another_number_of_classes_cannot_be_accepted(recipe, run, data, capsys) -> None:
    first_class(data)
    before = runs.listing(run)
    assert train(recipe, run, data, "--config.data.accept_changes=true") == 2
    error = capsys.readouterr().err
    assert "has the classes 4 (ant, bee, cat, ...), the run in" in error
    assert f"--config.init_from={run}" in error
    assert runs.listing(run) == before


def test_accepted_images_that_make_the_run_longer_are_said_to(run, data) -> None:
    config = run_config.read_config(run)
    longer = dataclasses.replace(
        config,
        total=Duration(epochs=4.0),  # of 12 images, by 16
        data=dataclasses.replace(
            config.data,
            source=dataclasses.replace(config.data.source, path=str(data)),
            accept_changes=True,
        ),
    )
    save(data, *(f"train/cat/{i}.png" for i in range(20, 24)))
    notes = datasets.open_data(longer, run, resumed=True).notes
    assert "note: with these data the run has 4 steps; it had 3" in notes
    # The length of a run on some images of each class does not depend on how many there are.
    some = dataclasses.replace(longer, data=dataclasses.replace(longer.data, per_class=2))
    notes = datasets.open_data(some, run, resumed=True).notes
    assert notes and not any("steps" in note for note in notes)


def test_a_run_of_before_there_were_records_is_taken_with_a_note(recipe, run, data, capsys) -> None:
    """Its classes are known from model.json all the same."""
    (run / "data.json").unlink()
    changed = pathlib.Path(shutil.copytree(data, data.with_name("changed")))
    first_class(changed)
    assert train(recipe, run, changed) == 2
    assert "class added: ant" in capsys.readouterr().err
    assert not (run / "data.json").exists()
    assert train(recipe, run, data) == 0
    assert "note: the run has no record of its data (data.json)" in capsys.readouterr().err
    assert record(run)["splits"]["train"]["examples"] == 12


@pytest.mark.parametrize("text", ["", "[]", '{"splits": {}}', '{"splits": {"train": 3}}'])
def test_a_damaged_record_is_one_line(recipe, run, images, capsys, text) -> None:
    (run / "data.json").write_text(text)
    assert train(recipe, run, images) == 2
    error = capsys.readouterr().err
    assert "data.json" in error and "damaged" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("examples",), value) for value in ("5", 10**400, -5, 5.0, True, None)),
        *((("parts", "cat", "examples"), value) for value in ("4", 10**400, -4)),
        *(((name,), value) for name in ("kind", "name", "digest") for value in ([], 5)),
        (("parts", "cat", "digest"), None),
        *((("class_names",), value) for value in ("abc", {"bee": 0}, ["bee", 3])),
        *(((name,), value) for name in ("parts", "images") for value in ([], "abc")),
        *((("parts",), {"cat": 4}), (("images",), {"cat/0.png": 5})),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_record_with_values_of_other_types_is_damaged(run, path, value) -> None:
    found = record(run)
    *outer, last = path
    place = found["splits"]["train"]
    for name in outer:
        place = place[name]
    place[last] = value
    (run / "data.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"data\.json is damaged: .+: restore it, or remove it"):
        datasets.read(run)


def evaluate(workdir: pathlib.Path, data: pathlib.Path, *more: str) -> int:
    return cli.run(
        "evaluate",
        "--workdir",
        workdir,
        "--json",
        "--config.data.source=image_folder",
        f"--config.data.path={data}",
        *more,
    )


def test_evaluation_says_where_the_images_are_not_those_of_the_run(
    run, images, data, capsys, caplog
) -> None:
    """Measuring on others is what the command is also for: a note."""
    assert evaluate(run, images) == 0
    assert not caplog.text
    other_evaluation(data)
    assert evaluate(run, data) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["count"] == 11
    assert "is not what the run was evaluated on: 1 image removed: cat/0.png" in caplog.text


def test_evaluation_follows_the_names_of_the_classes(run, images, data, capsys, caplog) -> None:
    """The same model whose classes are counted in another order measures the same."""
    assert evaluate(run, images) == 0
    expected = json.loads(capsys.readouterr().out)
    model = vit_jax.load(run)
    model.class_names = ("dog", "bee", "cat")
    for leaf in (model.head.kernel, model.head.bias):
        leaf[...] = jax.numpy.asarray(leaf[...])[..., np.array([2, 0, 1])]
    turned = data.with_name("turned")
    vit_jax.save(model, turned)
    overrides = ("--config.data.crop_pct=1.0",)
    assert evaluate(turned, images, *overrides) == 0
    found = json.loads(capsys.readouterr().out)
    del expected["step"], found["step"]
    assert found == pytest.approx(expected, rel=1e-5)
    assert "labels are matched by name: the same class names in another order" in caplog.text
    renamed_class(data)
    assert evaluate(run, data) == 2
    assert "wolf only here" in capsys.readouterr().err


def test_a_model_without_names_is_evaluated_by_number(
    run, images, tmp_path, capsys, caplog
) -> None:
    card = dataclasses.replace(run_folder.read_card(run), class_names=())
    run_folder.write_card(run, card)
    assert evaluate(run, images) == 0
    assert "only one side names its 3 classes (bee, cat, dog): they are matched by number" in (
        caplog.text
    )
    capsys.readouterr()
    save(tmp_path, *(f"four/val/{name}/0.png" for name in "abcd"))
    save(tmp_path, *(f"four/train/{name}/0.png" for name in "abcd"))
    assert evaluate(run, tmp_path / "four") == 2
    said = capsys.readouterr().err
    assert "has the classes 4 (a, b, c, ...), the model 3 without names" in said
