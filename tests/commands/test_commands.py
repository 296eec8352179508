"""The commands as a user calls them, on one tiny run: predict, fine-tuning."""

import csv
import json
import pathlib

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests import cli, runs
from tests.compare import assert_close
from vit_jax.checkpoints import run_folder
from vit_jax.commands import configs, dry_run
from vit_jax.data.arrays import EMBEDDED_CLASSES, open_embedded
from vit_jax.models import positions
from vit_jax.training import run as run_lib


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("commands") / "run"
    assert cli.train(recipe, workdir) == 0
    return workdir


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Three test images as files; the second is cut in half."""
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, pixels in zip(paths, open_embedded("test").images, strict=False):
        assert cv2.imwrite(str(path), pixels)
    paths[1].write_bytes(paths[1].read_bytes()[:80])
    return [str(path) for path in paths]


def test_predict_names_five_classes_and_goes_on_after_a_broken_image(run, images, capsys) -> None:
    assert cli.run("predict", "--workdir", run, *images, "gone.jpg") == 2
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [images[0], images[2]]
    assert all(line.count("%") == 5 for line in lines)
    assert f"vit_jax: {images[1]}: cannot decode the image" in printed.err
    assert "vit_jax: gone.jpg: there is no such file or folder" in printed.err
    assert printed.err.count("\n") == 2


def test_predict_gives_the_probabilities_of_the_loaded_model(run, images, printed) -> None:
    found = json.loads(printed("predict", "--workdir", run, "--json", "--top", "10", images[2]))
    assert found["image"] == images[2]
    pixels = np.repeat(open_embedded("test").images[2, ..., None], 3, axis=-1)
    normal = jnp.asarray(pixels[None], jnp.float32) / 127.5 - 1
    logits = np.asarray(vit_jax.load(run)(normal))[0]
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [c["class"] for c in found["classes"]] == [
        EMBEDDED_CLASSES[i] for i in np.argsort(-expected, kind="stable")
    ]
    probabilities = [c["probability"] for c in found["classes"]]
    assert_close(probabilities, sorted(expected, reverse=True), rtol=1e-5)


@pytest.fixture
def folder(images) -> pathlib.Path:
    """The same images in a folder and below it, a file that is no image, and an empty folder."""
    folder = pathlib.Path(images[0]).parent
    for name in ("below/deep", "empty", "new"):
        (folder / name).mkdir(parents=True)
    pathlib.Path(images[2]).rename(folder / "below/deep/2.png")
    pathlib.Path(images[1]).write_bytes(b"")
    (folder / "text.jpg").write_text("hello world")
    return folder


def test_predict_finds_images_in_folders_and_by_patterns(run, folder, capsys) -> None:
    given = [folder, f"{folder}/b*", f"{folder}/empty", f"{folder}/none*.png"]
    assert cli.run("predict", "--workdir", run, "--top", "1", *given) == 2
    output, errors = capsys.readouterr()
    deep = str(folder / "below/deep/2.png")
    assert [line.split(": ")[0] for line in output.splitlines()] == [
        *(str(folder / "0.png"), deep, deep)
    ]
    for line in (
        f"vit_jax: {folder}/1.png: cannot decode the image: the file is empty",
        f"vit_jax: {folder}/text.jpg: cannot decode the image: it begins with b'hello wo': it is"
        " not an image, or its header is damaged",
        f"vit_jax: {folder}/empty: it is a folder without images",
        f"vit_jax: {folder}/none*.png: no file has a name like this",
    ):
        assert errors.count(f"{line}\n") == 1
    assert errors.count("\n") == 4


def test_predict_compares_several_models_as_lines_json_and_csv(run, folder, capsys) -> None:
    other = folder / "new/run"
    vit_jax.save(vit_jax.load(run), other)

    def predicted(*arguments: object) -> list[str]:
        given = ("predict", "--workdir", run, "--workdir", other, folder, "--top", "2", *arguments)
        capsys.readouterr()
        assert cli.run(*given) == 2
        return capsys.readouterr().out.splitlines()

    lines = predicted()
    assert [line.split(": ")[:2] for line in lines[:2]] == [
        [str(folder / "0.png"), str(workdir)] for workdir in (run, other)
    ]
    objects = list(map(json.loads, predicted("--json")))
    assert [found["workdir"] for found in objects] == [str(run), str(other)] * 2
    assert objects[0]["classes"][0]["class"] == objects[1]["classes"][0]["class"]
    rows = list(csv.DictReader(predicted("--csv", "-")))
    assert [row["status"] for row in rows] == [*("ok",) * 2, *("broken",) * 2, "ok", "ok"] + [
        *("broken",) * 2
    ]
    best = objects[0]["classes"]
    assert [rows[0]["predicted"], rows[0]["predicted_2"]] == [one["class"] for one in best]
    assert float(rows[0]["probability_2"]) == pytest.approx(best[1]["probability"], rel=1e-6)
    assert predicted("--csv", folder / "new/table.csv") == []
    with open(folder / "new/table.csv", encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows


def test_predict_refuses_a_table_that_it_could_not_write(run, images, refused) -> None:
    for name, reason in (("no/such/a.csv", "there is no folder"), ("a.txt", "must end in .csv")):
        assert reason in refused("predict", "--workdir", run, images[0], "--csv", name)


def test_predict_names_the_classes_of_imagenet_or_those_of_a_file(
    tmp_path, images, printed
) -> None:
    model = vit_jax.create("Ti/8", image_size=8, width=8, depth=1, mlp_dim=8, num_heads=1)
    vit_jax.save(model, tmp_path / "run")
    line = printed("predict", "--workdir", tmp_path / "run", "--top", "1000", images[0])
    assert " tench " in line and " toilet tissue " in line
    (tmp_path / "classes.txt").write_text("".join(f"kind {i}\n" for i in range(1000)))
    given = ("--classes", tmp_path / "classes.txt", "--top", "1")
    assert ": kind " in printed("predict", "--workdir", tmp_path / "run", images[0], *given)


def fine_tune(recipe, workdir, source, *overrides: str) -> int:
    arguments = ["--config", recipe, "--workdir", workdir, f"--config.init_from={source}"]
    unset = [f"--config.model.{n}=0" for n in ("width", "depth", "mlp_dim", "num_heads")]
    return cli.run("train", *arguments, *unset, "--config.model.name=", *overrides)


FROZEN = r"--config.optimizer.frozen=('^(?!head)',)"  # all but the head


def test_fine_tuning_at_a_higher_resolution_starts_from_interpolated_positions(
    recipe, run, tmp_path, capsys
) -> None:
    """Everything but the head is frozen, so the start can be seen in the end."""
    overrides = ("--config.image_size=42,56", "--config.ema=0", FROZEN)
    assert fine_tune(recipe, tmp_path, run, *overrides) == 0
    assert "resized: encoder/position (1, 5, 16) -> (1, 13, 16)" in " ".join(
        capsys.readouterr().err.split()
    )
    before, after = runs.arrays(run), runs.arrays(tmp_path)
    expected = positions.resize(before["ema/encoder/position"], source=(2, 2), target=(3, 4))
    np.testing.assert_array_equal(after["params/encoder/position"], expected)
    for name in (
        "encoder/cls",
        "encoder/blocks/mlp/fc1/kernel",
        "encoder/embedding/kernel",
        "encoder/norm/scale",
    ):
        np.testing.assert_array_equal(after[f"params/{name}"], before[f"ema/{name}"])
    moved = after["params/head/kernel"] - before["ema/head/kernel"]
    assert 0 < np.abs(moved).max() < 0.1, "the head was kept, and trained"
    assert vit_jax.load(tmp_path).options.image_size == (42, 56)


def test_fine_tuning_from_a_released_file(recipe, shared, tmp_path, capsys) -> None:
    """Another number of classes: the head is new. Another size: the positions are resized."""
    source = shared / "fixtures" / "vitjax_cls" / "ckpt.npz"
    overrides = ("--config.image_size=32,48", "--config.model.num_heads=3", "--config.ema=0")
    assert fine_tune(recipe, tmp_path, source, *overrides) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "resized: encoder/position (1, 17, 48) -> (1, 25, 48)" in said
    assert "dropped: head/bias, head/kernel" in said
    card = run_folder.read_card(tmp_path)
    assert (card.options.image_size, card.options.num_classes) == ((32, 48), 10)
    assert card.class_names == EMBEDDED_CLASSES


def test_predict_takes_a_released_file_too(shared, images, printed) -> None:
    source = shared / "fixtures" / "vitjax_cls" / "ckpt.npz"
    classes = json.loads(
        printed("predict", "--workdir", source, "--json", "--top", "9", images[0])
    )["classes"]
    assert sorted(c["class"] for c in classes) == list("0123456"), "its classes have no names"
    assert sum(c["probability"] for c in classes) == pytest.approx(1)


def test_fine_tuning_on_one_channel_sums_the_first_kernel_where_asked_for(
    recipe, run, images, tmp_path, capsys
) -> None:
    """Everything but the head is frozen: what was fed and adapted can be seen in the end."""
    overrides = ("--config.model.channels=1", "--config.ema=0", FROZEN)
    assert fine_tune(recipe, tmp_path / "no", run, *overrides) == 2
    assert "give --adapt-channels (load: adapt_channels=True; a run:" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    grey = tmp_path / "grey"
    assert fine_tune(recipe, grey, run, *overrides, "--config.init_adapt_channels=True") == 0
    assert "3 channels of its first kernel are summed to 1" in capsys.readouterr().err
    kernel = runs.arrays(run)["ema/encoder/embedding/kernel"].sum(axis=2, keepdims=True)
    assert_close(runs.arrays(grey)["params/encoder/embedding/kernel"], kernel, rtol=1e-5)
    card = run_folder.read_card(grey)
    assert (card.options.channels, card.preprocessing.mean) == (1, (0.5,))
    assert cli.run("evaluate", "--workdir", grey) == 0
    assert cli.run("predict", "--workdir", grey, images[0]) == 0
    assert cli.run("figures", "--workdir", grey, "--only", "filters", "--only", "predictions") == 0


def test_a_dry_run_shows_the_run_and_its_first_batch_and_leaves_no_workdir(
    recipe, tmp_path, printed
) -> None:
    overrides = ("--config.optimizer.name=sgd", "--config.augment=('flip','value_range','mixup')")
    given = ("--config", recipe, "--workdir", tmp_path / "run", "--dry-run", *overrides)
    lines = printed("train", *given).splitlines()
    for line in (
        "config.optimizer.name = sgd",
        "config.total = steps=6",
        "Ti/14, 14,170 parameters, 10 classes, images 28x28, 5 tokens",
        "6 steps (0.0048 epochs); evaluation at the end, checkpoint at the end, line of metrics"
        " every 1",
    ):
        assert line in lines
    memory, step, picture = lines[-3:]
    # 14,170 numbers of 4 bytes; the optimizer keeps one more for each.
    assert memory == "memory of each device: parameters 0.1 MiB, optimizer 0.1 MiB, average 0.1 MiB"
    assert step.startswith("a step needs ") and "(as compiled)" in step
    assert picture == f"first batch: {tmp_path}/run.first_batch.png"
    assert [path.name for path in tmp_path.iterdir()] == ["run.first_batch.png"]
    assert cv2.imread(str(tmp_path / "run.first_batch.png")).std() > 20


def test_a_dry_run_refuses_a_picture_that_cannot_be_written(recipe, refused) -> None:
    said = refused("train", "--config", recipe, "--workdir", "/proc/run", "--dry-run")
    assert "/proc/run.first_batch.png cannot be written: " in said


def test_a_dry_run_draws_the_images_and_labels_that_training_gets(recipe, tmp_path) -> None:
    """Without augmentation: the images of the data, each with its class."""
    overrides = ["--config.augment=('value_range',)", "--config.data.shift=0"]
    config, _ = configs.read(str(recipe), overrides)
    images, labels = dry_run.first_batch(run_lib.opened(config, tmp_path, None))
    source = open_embedded("train")
    pairs = zip(source.images, source.labels, strict=True)
    known = {image.tobytes(): int(label) for image, label in pairs}
    found = [EMBEDDED_CLASSES[known[image[..., 0].tobytes()]] for image in images]
    assert [[name] for name in found] == labels and len(images) == 16
