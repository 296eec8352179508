"""A short summary of a split is recorded, and changes are named."""

import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest

from vit_jax.data import identity as identity_lib
from vit_jax.data.arrays import ArraySource, open_embedded
from vit_jax.data.changes import changes
from vit_jax.data.identity import Identity
from vit_jax.data.image_list import ImageListSource
from vit_jax.data.opening import open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.record import Record
from vit_jax.data.relabelled import Relabelled
from vit_jax.data.sources import FolderData


def save(root: pathlib.Path, *names: str) -> None:
    """Images of noise: equal sizes in bytes, different contents."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(str(name).encode()))
        PIL.Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(root / name)


def found(root: pathlib.Path) -> Identity:
    return open_train(DataConfig(source=FolderData(path=str(root)))).identity()


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    root = tmp_path / "data"
    save(root, *(f"train/{name}/{i}.png" for name in ("bee", "cat", "dog") for i in range(4)))
    return root


def add_class(root: pathlib.Path) -> None:
    save(root, "train/ant/0.png")


def remove_class(root: pathlib.Path) -> None:
    shutil.rmtree(root / "train/bee")


def rename_class(root: pathlib.Path) -> None:
    (root / "train/dog").rename(root / "train/wolf")


def swap_classes(root: pathlib.Path) -> None:
    train = root / "train"
    (train / "cat").rename(root / "t")
    (train / "dog").rename(train / "cat")
    (root / "t").rename(train / "dog")


def add_images(root: pathlib.Path) -> None:
    save(root, *(f"train/cat/{i}.png" for i in (7, 8, 9)))


def remove_images(root: pathlib.Path) -> None:
    (root / "train/cat/0.png").unlink()


def rename_image(root: pathlib.Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/cat/zz.png")


def move_image(root: pathlib.Path) -> None:
    (root / "train/cat/0.png").rename(root / "train/dog/9.png")


def replace_image(root: pathlib.Path) -> None:
    shutil.copy(root / "train/dog/0.png", root / "train/cat/1.png")


CHANGES = {
    add_class: ("class added: ant", ""),
    remove_class: ("class removed: bee", ""),
    rename_class: ("class renamed: dog -> wolf", ""),
    swap_classes: ("class cat holds the images that class dog held", ""),
    add_images: (
        "3 images added: cat/7.png, cat/8.png, cat/9.png",
        "cat holds 7 images now, 4 before",
    ),
    remove_images: ("1 image removed: cat/0.png", "cat holds 3 images now, 4 before"),
    rename_image: ("1 image renamed: cat/0.png -> cat/zz.png", "cat holds the same number of"),
    move_image: ("1 image renamed: cat/0.png -> dog/9.png", "dog holds 5 images now, 4 before"),
    replace_image: ("1 image with changed content: cat/1.png", "cat holds the same number of"),
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_every_change_of_a_folder_is_found_and_named(folder, change, large, monkeypatch) -> None:
    """A large folder is recorded by class, so a message names the class."""
    if large:
        monkeypatch.setattr(identity_lib, "MAX_RECORDED", 0)
    before = found(folder)
    assert bool(before.images) != large
    change(folder)
    after = found(folder)
    found_changes = "; ".join(changes(before, after))
    small, by_class = CHANGES[change]
    assert (by_class if large and "class" not in small else small) in found_changes
    assert changes(after, before), "the way back is a change too"
    assert "\n" not in found_changes


def test_a_moved_but_equal_folder_is_the_same(folder, tmp_path) -> None:
    before = found(folder)
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    shutil.rmtree(folder)
    assert changes(before, found(moved)) == ()
    assert found(moved) == before


def test_only_some_files_of_a_large_folder_are_opened(folder, monkeypatch) -> None:
    before = found(folder)
    monkeypatch.setattr(identity_lib, "MAX_OPENED", 3)
    after = found(folder)
    assert sum(" " in mark for mark in after.images.values()) == 3
    assert sum(" " in mark for mark in before.images.values()) == 12
    add_images(folder)
    assert "3 images added" in "; ".join(changes(after, found(folder)))


def test_arrays_and_lists_of_images_have_an_identity(folder) -> None:
    train, test = open_embedded("train"), open_embedded("test")
    assert changes(train.identity(), open_embedded("train").identity()) == ()
    other = ArraySource(
        name=train.name,
        class_names=train.class_names,
        images=train.images,
        labels=train.labels[::-1].copy(),
    )
    assert (
        "the same number of images, but different ones"
        in changes(train.identity(), other.identity())[0]
    )
    assert "5000 images in total now, 20000 before" in changes(train.identity(), test.identity())
    labels = {"cat/0.png": 0, "dog/0.png": 1}
    listed = ImageListSource(folder / "train", labels, class_names=("x", "y")).identity()
    turned = ImageListSource(
        folder / "train",
        {name: 1 - label for name, label in labels.items()},
        class_names=("x", "y"),
    ).identity()
    assert listed.examples == 2 and changes(listed, turned)
    assert "the source is now image_list, it was arrays" in changes(test.identity(), listed)


def test_labels_of_another_order_of_classes_are_translated() -> None:
    class Fruit:
        name, class_names = "fruit", ("fig", "kiwi", "plum")

        def __len__(self) -> int:
            return 4

        def read(self, index: int) -> Record:
            return Record(b"", index - 1, "")  # the first one has no label

    source = Relabelled(Fruit(), (1, 2, 0))
    assert source.class_names == ("plum", "fig", "kiwi")
    assert [source.read(i).label for i in range(len(source))] == [-1, 1, 2, 0]
