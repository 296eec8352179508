"""Training from a Python program, on its own images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import vit_jax
from tests import runs
from tests.compare import assert_same_bits
from vit_jax.commands import configs
from vit_jax.data.arrays import EMBEDDED_CLASSES, open_embedded
from vit_jax.data.given import DatasetSource, GivenData, using
from vit_jax.data.record import Record


def arrays(split: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    source = open_embedded(split)
    return source.images[:number], source.labels[:number]


class Pairs:
    """A dataset in the form of PyTorch's: pairs by index."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.integer]:
        return self._images[index], self._labels[index]


def test_arrays_and_any_object_with_the_same_images_train_the_same_run(
    recipe, tmp_path, refused
) -> None:
    config = configs.from_file(str(recipe), ["--config.total.steps=3"])
    train, held_out = arrays("train", 100), arrays("test", 60)
    seen: list[tuple[int, dict[str, float]]] = []
    metrics = vit_jax.train(
        config,
        tmp_path / "arrays",
        source=train,
        held_out=held_out,
        callbacks=[lambda step, values: seen.append((step, dict(values)))],
    )
    assert metrics["count"] == 60
    lines = [{"step": step, **values} for step, values in seen]
    assert list(map(runs.without_clock, lines)) == runs.lines(tmp_path / "arrays")
    own: dict[str, Any] = {"source": Pairs(*train), "held_out": Pairs(*held_out)}
    own["class_names"] = EMBEDDED_CLASSES
    assert vit_jax.train(config, tmp_path / "object", **own) == metrics
    assert_same_bits(runs.arrays(tmp_path / "arrays"), runs.arrays(tmp_path / "object"))
    assert vit_jax.load(tmp_path / "object").class_names == EMBEDDED_CLASSES
    # The command line cannot open these images.
    said = refused("evaluate", "--workdir", tmp_path / "object")
    assert "came from a Python program: use vit_jax.train and vit_jax.evaluate there" in said
    measured = vit_jax.evaluate(tmp_path / "object", Pairs(*held_out), class_names=EMBEDDED_CLASSES)
    assert measured == metrics
    with pytest.raises(ValueError, match="are of a dataset: give held_out too"):
        vit_jax.evaluate(tmp_path / "object", source=train)
    assert vit_jax.train(config, tmp_path / "object", **own)["count"] == 60, "complete"
    with pytest.raises(ValueError, match="the data of the run .* changed since it began"):
        vit_jax.train(config, tmp_path / "object", **own | {"source": Pairs(*arrays("test", 100))})


class Named(Pairs):
    """A dataset that names its classes."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
        super().__init__(images, labels)
        self.class_names = tuple(names)


def test_a_held_out_dataset_with_classes_in_another_order_is_matched_by_name(
    recipe, tmp_path
) -> None:
    config = configs.from_file(str(recipe), ["--config.total.steps=3"])
    (images, labels), order = arrays("test", 60), np.arange(10)[::-1]
    turned = Named(images, order[labels], np.array(EMBEDDED_CLASSES)[order])
    train = Named(*arrays("train", 100), EMBEDDED_CLASSES)
    metrics = vit_jax.train(config, tmp_path / "run", source=train, held_out=turned)
    same = Named(images, labels, EMBEDDED_CLASSES)
    for held_out, source in ((same, None), (turned, None), (turned, train), (turned, turned)):
        assert vit_jax.evaluate(tmp_path / "run", held_out, source=source) == metrics
    with pytest.raises(ValueError, match="the val dataset has classes of its own"):
        vit_jax.evaluate(tmp_path / "run", turned, class_names=EMBEDDED_CLASSES)


def test_images_are_not_their_own_neighbours_for_want_of_training_images(recipe, tmp_path) -> None:
    near = ("--config.evaluators.near.kind=knn", "--config.total.steps=2")
    config = configs.from_file(str(recipe), near)
    train, held_out = arrays("train", 100), arrays("test", 60)
    metrics = vit_jax.train(config, tmp_path / "run", source=train, held_out=held_out)
    assert vit_jax.evaluate(tmp_path / "run", held_out, source=train) == metrics
    with pytest.raises(ValueError, match="needs its training images: give them to .* as source"):
        vit_jax.evaluate(tmp_path / "run", held_out)


IMAGES, LABELS = arrays("train", 20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"source": (IMAGES / 255, LABELS)}, "train images are float64 .*: give uint8"),
        ({"source": (IMAGES, LABELS[:3])}, "train labels are int32 .3,.: give a whole number for"),
        ({"source": (IMAGES, LABELS - 5)}, "train labels are -5 to 4: there are 5 classes"),
        ({"source": 7}, "int is no dataset: give an object with __len__"),
        ({"source": Pairs(IMAGES, LABELS)}, "the classes of the dataset have no names"),
        (
            {"source": Pairs(IMAGES, LABELS), "class_names": "ab"},
            r"train.0. has class \d",
        ),
        (
            {"source": Pairs(IMAGES, LABELS / 10), "class_names": "ab"},
            "the class .*0.9.*: give one",
        ),
        ({"source": (IMAGES, np.array(["cat"] * 20))}, "train labels are <U3 .20,.: give a whole"),
        ({"source": (IMAGES, np.full(20, np.nan))}, "train labels are float64 .20,.: give a"),
        ({"source": open_embedded("train"), "class_names": "ab"}, "class_names are a, b, but the"),
        ({"held_out": (IMAGES, LABELS)}, "held_out and class_names are of a dataset: give source"),
    ],
)
def test_a_wrong_dataset_is_refused_before_anything_is_written(
    recipe, tmp_path, given, message
) -> None:
    config = configs.from_file(str(recipe), [])
    with pytest.raises(ValueError, match=message):
        vit_jax.train(config, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("label", [2, -2, 0.0, np.ones(2, np.uint8), "1", None])
def test_the_class_of_a_record_is_checked_as_that_of_a_pair(label) -> None:
    for found in (Record(IMAGES[0], label, "a"), (IMAGES[0], label)):
        source = DatasetSource(name="train", class_names=("a", "b"), dataset=[found])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"train\[0\] has (the )?class"):
            source.read(0)


def test_missing_files_of_a_dataset_are_left_to_the_pipeline(tmp_path) -> None:
    """It counts them, and `config.data.max_bad` says how many may be missing."""
    (tmp_path / "x.jpg").write_bytes(b"content")
    dataset = [(tmp_path / "x.jpg", 0), (tmp_path / "y.jpg", 1)]
    source = DatasetSource(name="train", class_names=("a", "b"), dataset=dataset)
    assert source.sample() == [0] and source.identity().examples == 2
    with pytest.raises(FileNotFoundError):
        source.read(1)


def test_names_of_classes_may_be_an_array() -> None:
    with using((IMAGES, LABELS), class_names=np.array(list("abcdefghij"))):  # type: ignore[arg-type]
        assert GivenData().open("train", train_split="train").class_names == tuple("abcdefghij")


def test_a_dataset_may_give_files_and_is_evaluated_on_if_it_is_the_only_one(tmp_path) -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    for name, found in ((b"\xff\xd8", b"\xff\xd8"), (image, image)):
        source = DatasetSource(name="train", class_names=("a",), dataset=[(name, 0)])
        assert np.array_equal(source.read(0).data, found)
    (tmp_path / "x.jpg").write_bytes(b"content")
    with using([(tmp_path / "x.jpg", 0)], class_names=["a"]):
        assert GivenData().splits(train_split="train") == ("train", "all")
        record = GivenData().open("all", train_split="train").read(0)
    assert (record.data, record.label, record.path) == (b"content", 0, str(tmp_path / "x.jpg"))
    with pytest.raises(ValueError, match="came from a Python program"):
        GivenData().splits(train_split="train")
