"""Image folders: the layouts that are supported, and one clear line for any other."""

import pathlib
import tarfile

import PIL.Image
import pytest

from vit_jax.data.image_folder import ImageFolder, ImageFolderSource
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.pipeline import eval_batches
from vit_jax.data.preprocess import EvalTransform, decode
from vit_jax.data.sources import FolderData


def make(root: pathlib.Path, *files: str) -> DataConfig:
    """Creates a folder with these images and other files."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            PIL.Image.new("RGB", (6, 5), (len(name), 0, 0)).save(path)
        else:
            path.write_text("no image")
    return DataConfig(source=FolderData(path=str(root)))


def files(source: object) -> list[str]:
    assert isinstance(source, ImageFolderSource)
    return [pathlib.Path(f).name for f in source.files]


def test_folders_of_classes_are_the_training_split(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "dog/b.JPG", "dog/a.png", "cat/z.jpeg", "cat/deep/er/y.webp")
    source = open_train(data)
    assert source.class_names == ("cat", "dog")
    assert files(source) == ["y.webp", "z.jpeg", "a.png", "b.JPG"]
    records = [source.read(i) for i in range(len(source))]
    assert [r.label for r in records] == [0, 0, 1, 1]
    assert all(decode(r.data).shape == (5, 6, 3) for r in records)
    assert records[3].path == str(tmp_path / "dog" / "b.JPG")


def test_hidden_and_other_files_are_ignored(tmp_path: pathlib.Path) -> None:
    data = make(
        tmp_path,
        "a/1.png",
        "b/1.png",
        "a/.2.png",
        "a/.x/3.png",
        ".git/4.png",
        "a/notes.txt",
        "5.png",
    )
    assert files(open_train(data)) == ["1.png", "1.png"]


@pytest.mark.parametrize("held_out", ["val", "validation", "test"])
def test_split_folders_give_splits_with_the_classes_of_train(
    tmp_path: pathlib.Path, held_out: str
) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/2.png", "train/c/3.png", f"{held_out}/b/4.png")
    assert data.source.splits(train_split="train") == ("train", held_out)
    source = open_eval(data)
    assert source.class_names == ("a", "b", "c")
    assert files(source) == ["4.png"] and source.read(0).label == 1


def test_validation_is_preferred_to_test(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/v.png", "test/a/t.png")
    assert files(open_eval(data)) == ["v.png"]
    assert files(open_source(data, split="test")) == ["t.png"]


def test_a_class_may_be_called_train(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/1.png", "car/2.png")
    assert open_train(data).class_names == ("car", "train")


def test_a_folder_without_splits_is_evaluated_as_a_whole(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(tmp_path, "a/1.png", "b/2.png", "b/3.png")
    for source in (open_eval(data), open_source(data, split="all")):
        assert files(source) == ["1.png", "2.png", "3.png"]
    assert "evaluating on all its images" in caplog.text
    with pytest.raises(ValueError, match="no split 'val': there are train, all; expected ROOT/"):
        open_source(data, split="val")


def refusal(data: DataConfig, *, split: str = "train") -> str:
    with pytest.raises(ValueError) as error:
        open_source(data, split=split)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_missing_folder_is_named(tmp_path: pathlib.Path) -> None:
    message = refusal(DataConfig(source=FolderData(path=str(tmp_path / "gone"))))
    assert f"config.data.path {tmp_path / 'gone'} is not a folder" in message
    assert "config.data.path is empty" in refusal(DataConfig(source=FolderData()))


def test_empty_folder_is_named(tmp_path: pathlib.Path) -> None:
    message = refusal(make(tmp_path))
    assert message.startswith(f"{tmp_path} has no class folders: expected ROOT/CLASS/image.jpg")
    assert "has no class folders" in refusal(make(tmp_path, "1.png", "2.png"))


def test_single_class_is_named(tmp_path: pathlib.Path) -> None:
    assert "single class folder, cat: at least 2" in refusal(make(tmp_path, "cat/1.png"))


def test_class_folder_without_images_is_named(tmp_path: pathlib.Path) -> None:
    message = refusal(make(tmp_path, "cat/1.png", "dog/x.txt"))
    assert message.startswith(f"{tmp_path / 'dog'} holds no image")


def test_a_class_that_is_missing_in_train_is_named(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "val/wolf/4.png")
    assert refusal(data, split="val").endswith("does not have: wolf")


def test_held_out_folder_without_images_is_named(tmp_path: pathlib.Path) -> None:
    data = make(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/x.txt")
    assert refusal(data, split="val").startswith(f"{tmp_path / 'val'} holds no image")


def test_missing_train_folder_is_named(tmp_path: pathlib.Path) -> None:
    message = refusal(make(tmp_path, "val/a/1.png", "test/a/1.png"))
    assert "no train folder with class folders in it, only test, val: expected ROOT/" in message


def test_tiny_imagenet_is_read_and_evaluated_whole(
    shared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with tarfile.open(shared / "data" / "tiny_imagenet_20.tar") as archive:
        members = [m for m in archive if m.isfile() and m.name.endswith(("_1.JPEG", "_12.JPEG"))]
        held_out = [m for m in archive if m.isfile() and m.name.startswith("val/")][::20]
        archive.extractall(tmp_path, [*members, *held_out], filter="data")
    folder = ImageFolder(str(tmp_path))
    train, val = folder.open("train"), folder.open("val")
    assert len(train) == 40 and len(val) == 50
    assert len(train.class_names) == 20
    batches = list(eval_batches(val, EvalTransform(size=(32, 32)), batch_size=16, threads=2))
    assert sum(b["mask"].sum() for b in batches) == 50
    for batch in batches:
        for index, label in zip(batch["id"][batch["mask"]], batch["label"], strict=False):
            assert pathlib.Path(val.files[index]).parent.name == val.class_names[label]
