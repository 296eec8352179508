"""Folders that are named like splits are splits in any spelling."""

import pathlib

import pytest

from tests.data.test_image_folder import files, make, refusal
from vit_jax.data import split_names
from vit_jax.data.image_folder import ImageFolder
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.sources import FolderData


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "valid"),
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("training", "validation"),
        ("training", "testing"),
        ("train", "dev"),
        ("train", "eval"),
        ("Training_Set", "test_set"),
        ("train-images", "val-images"),
        ("train_data", "Evaluation"),
    ],
)
def test_splits_are_known_by_the_names_that_people_use(
    tmp_path: pathlib.Path, train: str, held_out: str
) -> None:
    data = make(tmp_path, f"{train}/a/1.png", f"{train}/b/2.png", f"{held_out}/b/3.png")
    assert data.source.splits(train_split="train") == (train, held_out)
    assert files(open_train(data)) == ["1.png", "2.png"]
    assert files(open_eval(data)) == files(open_source(data, split=held_out)) == ["3.png"]
    for name in split_names.KINDS[split_names.kind(held_out)]:
        assert files(open_source(data, split=name)) == ["3.png"]


def test_validation_is_preferred_to_test_however_they_are_spelled(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "Train/a/1.png", "Train/b/1.png", "Testing/a/t.png", "Dev/a/v.png")
    assert files(open_eval(data)) == ["v.png"]


def test_other_names_are_no_splits() -> None:
    for name in ("car", "valley", "trainer", "set", "data", "testament", "devil", "", "_"):
        assert split_names.kind(name) == ""


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Valid"), ("val", "dev")])
def test_a_folder_of_splits_alone_is_never_trained_as_classes(
    tmp_path: pathlib.Path, names: tuple[str, ...]
) -> None:
    message = refusal(make(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(3))))
    assert f"no train folder with class folders in it, only {', '.join(sorted(names))}" in message


def test_the_parent_of_splits_is_refused_with_the_folder_to_give(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "set1/train/a/1.png", "set1/train/b/1.png", "set1/val/a/1.png")
    assert f"set config.data.path to {tmp_path / 'set1'}" in refusal(data)
    followed = DataConfig(source=FolderData(path=str(tmp_path / "set1")))
    assert len(open_train(followed)) == 2 and len(open_eval(followed)) == 1


def test_splits_in_a_training_folder_are_refused_with_the_folder_to_give(
    tmp_path: pathlib.Path,
) -> None:
    names = [f"train/{split}/{c}/1.png" for split in ("train", "val") for c in "ab"]
    assert f"set config.data.path to {tmp_path / 'train'}" in refusal(make(tmp_path, *names))
    assert len(ImageFolder(str(tmp_path / "train")).open("val")) == 2


def test_splits_below_each_class_are_not_trained_together(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, *(f"{c}/{s}/1.png" for c in ("cat", "dog") for s in ("train", "test")))
    message = refusal(data)
    assert message.startswith(f"{tmp_path / 'cat'} holds folders that look like splits (")
    assert "would be trained as one class" in message


def test_a_training_folder_beside_a_class_is_ambiguous(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/steam/1.png", "train/diesel/1.png", "car/1.png")
    assert "may be the training split, or a class beside car" in refusal(data)
    followed = DataConfig(source=FolderData(path=str(tmp_path / "train")))
    assert open_train(followed).class_names == ("diesel", "steam")
    (tmp_path / "train").rename(tmp_path / "railway")
    assert open_train(data).class_names == ("car", "railway")


def test_a_split_beside_classes_is_refused(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "cat/1.png", "dog/1.png", "val/cat/2.png", "val/dog/2.png")
    assert f"{tmp_path / 'val'} looks like a split, but is beside" in refusal(data)
    for name in ("cat", "dog"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert files(open_train(data)) == ["1.png", "1.png"] and files(open_eval(data)) == ["2.png"] * 2


def test_two_training_folders_need_a_choice(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "Train/a/1.png", "Train/b/1.png", "training/a/2.png", "training/c/2.png")
    assert "has Train and training: set config.data.train_split to one of them" in refusal(data)
    for name, classes in (("Train", ("a", "b")), ("training", ("a", "c"))):
        chosen = DataConfig(source=FolderData(path=str(tmp_path)), train_split=name)
        assert open_train(chosen).class_names == classes


def test_two_held_out_folders_of_a_kind_are_chosen_by_name(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/1.png", "Val/a/2.png", "dev/a/3.png")
    assert files(open_eval(data)) == ["2.png"]
    assert files(open_source(data, split="dev")) == ["3.png"]
    assert "no split 'valid': there are train, Val, dev" in refusal(data, split="valid")


def test_any_folder_of_the_same_classes_can_be_chosen(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/1.png", "fold5/a/2.png")
    assert files(open_source(data, split="fold5")) == ["2.png"]
    with pytest.raises(ValueError, match=r"set config\.data\.eval_split; there are train, fold5$"):
        open_eval(data)


@pytest.mark.parametrize("flat", ["val", "Test"])
def test_a_held_out_folder_without_classes_is_never_picked(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, flat: str
) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/1.png", f"{flat}/1.png", "testing/b/2.png")
    assert files(open_eval(data)) == ["2.png"]
    assert f"not splits with class folders are not read: {flat}" in caplog.text
    (tmp_path / "testing").rename(tmp_path / ".testing")
    with pytest.raises(
        ValueError, match="no labelled split that is named like an evaluation split"
    ):
        open_eval(data)
    data = DataConfig(source=FolderData(path=str(tmp_path)), eval_split="train")
    assert files(open_eval(data)) == ["1.png", "1.png"]
