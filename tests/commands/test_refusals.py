"""Arguments that would destroy, mislead or fill the memory are refused in one line, code 2."""

import errno
import json
import pathlib

import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import cli
from tests.models import tiny
from vit_jax.export import own
from vit_jax.workdir import place


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("model") / "m.npz"
    vit_jax.save(tiny.model(image_size=(16, 16), num_heads=4), path)
    return path


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("run") / "run"
    assert cli.run("convert", model, path, "--num-heads", "4") == 0
    return path


HEADS = ("--num-heads", 4, "--layout", "vit_jax")


def test_a_model_without_a_head(tmp_path, refused) -> None:
    path = tmp_path / "m.npz"
    vit_jax.save(tiny.model(num_classes=0), path)
    image = tmp_path / "a.png"
    PIL.Image.new("RGB", (8, 8)).save(image)
    (tmp_path / "labels").write_text("a.png 0\n")
    run = tmp_path / "run"
    assert cli.run("convert", path, run, "--num-heads", "4", "--grid", "2,3") == 0
    on_images = ["--images", tmp_path, "--labels", tmp_path / "labels"]
    for command in (
        ["predict", "--workdir", run, image],
        ["evaluate", "--workdir", run],
        ["evaluate", "--workdir", run, *on_images],
        ["figures", "--workdir", run, "--only", "predictions", image],
    ):
        said = refused(*command, folder=tmp_path)
        assert "the model has no head" in said and "config.init_from" in said


def test_a_target_that_is_the_source_in_any_guise(model, tmp_path, refused) -> None:
    link, hard, folder = tmp_path / "link.npz", tmp_path / "hard.npz", tmp_path / "folder"
    link.symlink_to(model)
    hard.hardlink_to(model)
    folder.symlink_to(model.parent)
    for target in (model, link, hard, folder / model.name):
        for more in ((), ("--overwrite",)):
            said = refused("convert", model, target, *HEADS, *more, folder=model.parent)
            assert "is the source or a part of it" in said


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("images")
    for name in "01":
        (folder / name).mkdir()
        PIL.Image.new("RGB", (16, 16)).save(folder / name / "a.png")
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("exported") / "weights"
    folder.mkdir()
    own.write(folder, vit_jax.load(run), (), stored="float32")
    return folder


@pytest.mark.parametrize("source", ["model", "exported"])
def test_a_step_of_a_model_that_has_no_steps(source, recipe, images, tmp_path, refused, request):
    workdir = request.getfixturevalue(source)
    for command in (
        ["predict", images, "--workdir", workdir],
        ["embed", images, tmp_path / "e.npz", "--workdir", workdir],
        ["figures", images, "--workdir", workdir, "-o", tmp_path / "pictures"],
        ["export", workdir, tmp_path / "exported"],
        ["evaluate", "--workdir", workdir, "--images", images],
        ["evaluate", "--workdir", workdir, "--config", recipe],
    ):
        for step in ("best", 3):
            said = refused(*command, "--step", step, folder=tmp_path)
            assert f"{workdir} is one model, not a run with checkpoints" in said


def test_a_step_of_a_run_that_is_compared_with_a_model_without_steps(
    run, exported, images, refused, capsys
) -> None:
    both = ["predict", images, "--workdir", run, "--workdir", exported]
    assert cli.run(*both, "--step", "0") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert "no step 7 in" in refused(*both, "--step", "7", folder=run)


@pytest.mark.skipif(not pathlib.Path("/proc").is_dir(), reason="it needs a folder that is not real")
def test_outputs_in_a_folder_that_cannot_be_written(run, images, refused, monkeypatch) -> None:
    monkeypatch.setattr("vit_jax.commands.predictions.load", None)  # it must not be used
    for command in (
        ["predict", images, "--workdir", run, "--csv", "/proc/p.csv"],
        ["evaluate", "--images", images, "--workdir", run, "--predictions", "/proc/p.csv"],
        ["evaluate", "--images", images, "--workdir", run, "--confusion", "/proc/p.csv"],
        ["embed", images, "/proc/p.npz", "--workdir", run],
    ):
        assert "cannot be written: " in refused(*command)


def test_metrics_are_printed_before_files_that_cannot_be_written(
    run, images, tmp_path, capsys, monkeypatch
) -> None:
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, "write_whole", full)
    file = tmp_path / "p.csv"
    command = ["evaluate", "--images", images, "--workdir", run, "--json"]
    assert cli.run(*command, "--predictions", file, "--per-class") == 2
    output, errors = capsys.readouterr()
    assert json.loads(output)["count"] == 2 and len(json.loads(output)["per_class"]) == 2
    assert errors == f"vit_jax: {file} cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--image-size", "32"], "--image-size is for a released file or for --images"),
        (["evaluate", "--orientation"], "set --config.data.orientation=True for the data of a"),
        (["figures", "--augment", "--image-size", "32"], "--image-size is for the pictures of a"),
        (["figures", "--augment", "--measured", "3"], "--measured is for the pictures of a model"),
        (["figures", "--augment", "--step", "best"], "--step is for the pictures of a model"),
    ],
)
def test_options_without_an_effect(run, refused, arguments, message) -> None:
    assert message in refused(*arguments, "--workdir", run, folder=run)


def test_a_number_of_images_for_a_report_without_pictures(run, refused) -> None:
    said = refused("report", run, "--no-pictures", "--measured", 3, folder=run)
    assert "--measured is for the pictures" in said


def test_the_current_folder_as_the_target(model, tmp_path, refused, monkeypatch) -> None:
    """Replaced as a whole, it would be another folder than the one where the user is."""
    monkeypatch.chdir(tmp_path)
    for target in (".", tmp_path):
        for command in (["export", model, target], ["convert", model, target, "--num-heads", "4"]):
            said = refused(*command, folder=tmp_path)
            assert f"{target} is the current folder: name a folder" in said
        with pytest.raises(ValueError, match="is the current folder"):
            vit_jax.save(tiny.model(), target)


def test_a_target_inside_of_what_is_read(model, tmp_path, refused) -> None:
    run = tmp_path / "run"
    assert cli.run("convert", model, run, "--num-heads", "4") == 0
    inside = run / "model.json"
    said = refused("convert", run, inside, "--layout", "vit_jax", "--overwrite", folder=run)
    assert "a part of it" in said
    assert "is the source or a part of it" in refused("convert", run, run, folder=run)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-heads", "2"], "with num_heads 4, not 2"),
        (["--grid", "9,9"], "with grid (2, 2), not (9, 9)"),
        (["--decoder-heads", "3"], "without decoder_heads, not 3"),
        (["--source-layout", "timm"], "without layout, not 'timm'"),
    ],
)
def test_flags_that_contradict_a_run(run, tmp_path, refused, flags, message) -> None:
    arguments = ["convert", run, tmp_path / "o.npz", "--layout", "vit_jax", *flags]
    assert f"{run} is a run {message}" in refused(*arguments, folder=tmp_path)


def test_a_target_that_is_there(model, tmp_path, refused) -> None:
    mine = tmp_path / "mine.npz"
    mine.write_bytes(b"mine")
    said = refused("convert", model, mine, *HEADS, folder=tmp_path)
    assert f"{mine} exists: give another name, or --overwrite" in said
    assert cli.run("convert", model, mine, *HEADS, "--overwrite") == 0
    np.testing.assert_array_equal(np.load(mine)["cls"], np.load(model)["cls"])
    run = tmp_path / "run"
    assert cli.run("convert", model, run, "--num-heads", "4") == 0
    for more in ((), ("--overwrite",)):
        said = refused("convert", model, run, "--num-heads", 4, *more, folder=tmp_path)
        assert "exists and is not empty" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--num-heads", "-3"], "'-3': give a positive whole number"),
        (["--num-classes", "1000000000"], "num_classes is 1000000000: it must be from 0 to"),
        (["--num-classes", "0"], "'0': give a positive whole number"),
        (["--num-classes", "-1"], "positive"),
        (["--num-classes", "1" * 5000], "positive"),
        (["--channels", "0"], "positive"),
        (["--channels", "1"], "takes 3 channels, the model 1: .* give --adapt-channels"),
        (["--image-size", "0"], "give HEIGHT or HEIGHT,WIDTH, both positive"),
        (["--image-size", "1000000"], "image_size is (1000000, 1000000)"),
        (["--grid", "0,3"], "both positive"),
        (["--grid", "²"], "both positive"),
        (["--patch-size", "0"], "both positive"),
        (["--decoder-heads", "-1"], "positive"),
        (["--\x1b[31m"], r"unknown arguments: --\x1b[31m"),
        (["--source-layout", ""], "--source-layout has an empty value"),
        (["--source-layout="], "--source-layout has an empty value"),
        ([""], "an argument has an empty value"),
    ],
)
def test_numbers_that_cannot_be(model, tmp_path, refused, arguments, said) -> None:
    target = tmp_path / "o.npz"
    given = [] if "--num-heads" in arguments else ["--num-heads", "4"]
    error = refused(
        "convert", model, target, "--layout", "vit_jax", *given, *arguments, folder=tmp_path
    )
    assert all(part in error for part in said.split(".*"))


@pytest.mark.parametrize("top", ["0", "-1", "abc", "1.5"])
def test_a_number_of_classes_to_show(model, tmp_path, refused, top) -> None:
    said = refused("predict", "--workdir", model, "--top", top, "a.png", folder=tmp_path)
    assert f"argument --top: '{top}': give a positive whole number" in said


def test_channels_are_adapted_where_asked_for(model, tmp_path, printed) -> None:
    target = tmp_path / "grey.npz"
    asked = ["--channels", "1", "--adapt-channels"]
    said = printed("convert", model, target, *HEADS, *asked)
    assert "3 channels of its first kernel are summed to 1" in said
    assert np.load(target)["embedding/kernel"].shape[2] == 1
