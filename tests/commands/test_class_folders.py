"""A model is measured on folders of classes, which may be a part of its classes."""

import json
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests.models import tiny
from vit_jax.checkpoints import imagenet

CLASSES = (0, 134, 517, 999)
SYNSETS = [imagenet.synsets()[i] for i in CLASSES]
IMAGES = 3  # of each class


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A model of 1000 classes without names."""
    return tiny.saved(tmp_path_factory.mktemp("model"), image_size=(16, 16), num_classes=1000)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pathlib.Path:
    """Images of noise in folders named by synset."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in SYNSETS:
        (folder / name).mkdir()
        for number in range(IMAGES):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def measure(model, printed):
    def call(*arguments: object) -> dict:
        return json.loads(printed("evaluate", "--workdir", model, "--json", *arguments))

    return call


def numbers(found: dict) -> dict[str, float]:
    return {name: value for name, value in found.items() if isinstance(value, float)}


@pytest.mark.parametrize(
    "names", [[imagenet.names()[i] for i in CLASSES], [str(i) for i in CLASSES]]
)
def test_folders_may_be_named_by_synset_word_or_number(measure, images, tmp_path, names) -> None:
    for synset, name in zip(SYNSETS, names, strict=True):
        shutil.copytree(images / synset, tmp_path / name)
    expected = measure("--images", images, "--per-class")
    assert (expected["classes"], expected["count"]) == ("4 of 1000", 12)
    shown = [row["class"] for row in expected["per_class"]]
    assert shown == [imagenet.names()[i] for i in CLASSES]
    found = measure("--images", tmp_path, "--per-class")
    assert found["per_class"] == expected["per_class"]
    assert numbers(found) == pytest.approx(numbers(expected), rel=1e-6)


def test_a_list_may_name_classes_by_synset_and_a_file_may_name_the_classes(
    measure, images, tmp_path
) -> None:
    labels = {f"{name}/{n}.png": name for name in SYNSETS for n in range(IMAGES)}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    expected = measure("--images", images)
    listed = ("--images", images, "--labels", tmp_path / "labels.json")
    assert numbers(measure(*listed)) == pytest.approx(numbers(expected), rel=1e-6)
    own = [f"kind {i}" for i in range(1000)]
    (tmp_path / "classes.txt").write_text("\n".join(own))
    for number, synset in zip(CLASSES, SYNSETS, strict=True):
        shutil.copytree(images / synset, tmp_path / "own" / own[number])
    named = ("--images", tmp_path / "own", "--classes", tmp_path / "classes.txt")
    found = measure(*named, "--per-class")
    assert [row["class"] for row in found["per_class"]] == [own[i] for i in CLASSES]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_real_labels_count_any_of_an_images_classes(measure, model, images, tmp_path) -> None:
    """An image without labels is left out. Names may have a synset after the number."""
    (tmp_path / "val").mkdir()
    names = ("00000001.png", "00000002_n01443537.png", "00000003.png")
    paths = [tmp_path / "val" / f"ILSVRC2012_val_{name}" for name in names]
    for path, name in zip(paths, SYNSETS, strict=False):
        shutil.copy(images / name / "0.png", path)
    loaded = vit_jax.load(model)
    best = np.asarray(loaded(vit_jax.read_images(paths, loaded))).argmax(axis=1).tolist()
    for content, hits in (([[5, best[0]], [], [6]], 1), ([[5, 6], [], [best[2]]], 1)):
        (tmp_path / "real.json").write_text(json.dumps(content))
        found = measure("--images", tmp_path / "val", "--real", tmp_path / "real.json")
        assert (found["count"], found["unlabelled"]) == (2, 1)
        assert found["top1"] == hits / 2


def test_what_names_no_class_is_refused(model, images, refused, tmp_path) -> None:
    shutil.copytree(images / SYNSETS[0], tmp_path / "in" / "tennch")
    command = ("evaluate", "--workdir", model, "--images")
    said = refused(*command, tmp_path / "in")
    assert "1 of 1 names are not of the model's 1000 classes: 'tennch' (like 'tench')" in said
    assert "has no class folders: name the classes" in refused(*command, images / SYNSETS[0])
    (tmp_path / "empty" / "tench").mkdir(parents=True)
    assert "holds no image" in refused(*command, tmp_path / "empty")
    shutil.copytree(images, tmp_path / "split" / "val")
    assert f"such as --images {tmp_path}/split/val" in refused(*command, tmp_path / "split")
    (tmp_path / "real.json").write_text("[[0], [1]]")
    said = refused(*command, images, "--real", tmp_path / "real.json")
    assert "needs validation images of ImageNet" in said and "0.png" in said
    assert "give --images too" in refused(*command[:-1], "--real", tmp_path / "real.json")
    said = refused(*command, images, "--classes", tmp_path / "real.json")
    assert "does not name the classes" in said
