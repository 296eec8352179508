"""Nothing in an image folder is skipped silently: it is read, reported, or an error."""

import os
import pathlib

import pytest

from tests.data.test_image_folder import files, make, refusal
from vit_jax.data import folder_scan
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig


@pytest.fixture
def data(tmp_path: pathlib.Path) -> DataConfig:
    return make(tmp_path / "data", *(f"{s}/{c}/1.png" for s in ("train", "val") for c in "ab"))


@pytest.fixture
def root(data: DataConfig) -> pathlib.Path:
    return pathlib.Path(data.source.path)


def test_links_to_folders_and_files_are_followed(tmp_path, data, root) -> None:
    make(tmp_path / "more", "x/2.png", "x/deep/3.png", "c/4.png")
    (root / "train/a/more").symlink_to(tmp_path / "more/x")
    (root / "train/a/9.png").symlink_to(tmp_path / "more/c/4.png")
    (root / "train/c").symlink_to(tmp_path / "more/c", target_is_directory=True)
    source = open_train(data)
    assert source.class_names == ("a", "b", "c")
    assert sorted(files(source)) == ["1.png", "1.png", "2.png", "3.png", "4.png", "9.png"]
    assert all(len(source.read(i).data) for i in range(len(source)))


def test_a_folder_that_two_links_lead_to_counts_twice(tmp_path, data, root) -> None:
    """As in torchvision and timm: the user made the links."""
    make(tmp_path / "more", "2.png")
    for name in ("one", "two"):
        (root / "train/a" / name).symlink_to(tmp_path / "more")
    assert files(open_train(data)) == ["1.png", "2.png", "2.png", "1.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../a"])
def test_a_link_to_a_folder_that_contains_it_is_not_followed(data, root, caplog, target) -> None:
    (root / "train/a/loop").symlink_to(target)
    assert files(open_train(data)) == ["1.png", "1.png"]
    assert "links to a folder that contains them are not followed" in caplog.text
    assert str(root / "train/a/loop") in caplog.text


def test_a_split_may_be_a_link(tmp_path, data, root) -> None:
    (root / "val").rename(tmp_path / "elsewhere")
    (root / "val").symlink_to(tmp_path / "elsewhere")
    assert files(open_eval(data)) == ["1.png", "1.png"]


@pytest.mark.parametrize("place", ["val", "train/c", "train/a/more"])
@pytest.mark.parametrize("target", ["/no/such/folder", "itself"])
def test_a_link_to_no_folder_is_an_error(root, data, place, target) -> None:
    link = root / place
    if place == "val":
        link = root / "test"
    link.symlink_to(link.name if target == "itself" else target)
    message = refusal(data)
    assert str(link) in message
    assert "which does not exist" in message or "cannot read the folder" in message


@pytest.mark.parametrize("place", ["train/A. Bernard", "val/a.b", "te.st"])
def test_a_broken_link_to_a_folder_whose_name_has_a_dot_is_an_error(root, data, place) -> None:
    """Names of animals have dots. Without the class, the numbers of all others would shift."""
    (root / place).symlink_to("/no/such")
    assert f"{root / place} is a link to /no/such, which does not exist" in refusal(data)


def test_a_broken_link_to_an_image_is_reported_as_a_broken_image(root, data) -> None:
    (root / "train/a/2.png").symlink_to("/no/such")
    (root / "train/a/3.png").symlink_to("3.png")
    (root / "train/a/notes.txt").symlink_to("/no/such")
    source = open_train(data)
    assert files(source) == ["1.png", "2.png", "3.png", "1.png"]
    for index in (1, 2):
        with pytest.raises(OSError):
            source.read(index)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
@pytest.mark.parametrize("place", ["train", "train/a", "train/a/deep", "val", "val/b"])
def test_a_closed_folder_is_an_error(root, data, place) -> None:
    make(root, "train/a/deep/2.png")
    (root / place).chmod(0)
    try:
        with pytest.raises(ValueError, match=f"cannot read the folder .*{place}: Permission"):
            open_train(data)
            open_eval(data)
    finally:
        (root / place).chmod(0o755)


def test_a_folder_that_cannot_be_listed_is_an_error(root, data, monkeypatch) -> None:
    """For example because of permissions, or because of errors of the disk."""
    scandir = os.scandir

    def failing(path):
        if str(path).endswith(os.path.join("train", "b")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(folder_scan.os, "scandir", failing)
    message = refusal(data)
    assert message == (
        f"cannot read the folder {root / 'train' / 'b'}: Permission denied; make it readable, or"
        " move it away"
    )


def test_a_pipe_among_the_images_is_not_opened(root, data, caplog) -> None:
    os.mkfifo(root / "train/a/2.png")
    (root / "train/a/3.png").symlink_to(root / "train/a/2.png")
    assert files(open_train(data)) == ["1.png", "1.png"]
    assert "files that are not read, by suffix: pipe or device 2" in caplog.text


def test_system_folders_are_hidden_and_unreadable_folders_beside_splits_are_reported(
    root, data, monkeypatch, caplog
) -> None:
    make(
        root,
        "lost+found/x/1.png",
        "train/@eaDir/1.png",
        "train/a/__MACOSX/1.png",
        "private/x/1.png",
    )
    scandir = os.scandir

    def failing(path):
        if str(path).endswith(("lost+found", "private")):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(folder_scan.os, "scandir", failing)
    assert files(open_train(data)) == ["1.png", "1.png"]
    assert "folders that are not splits with class folders are not read: private\n" in caplog.text


def test_what_is_not_read_is_reported(root, data, caplog) -> None:
    make(root, "train/a/x.txt", "train/a/y.TXT", "train/b/z.gif", "train/b/plain", "train/8.png")
    make(root, "9.jpg", "annotations/x.xml", "train/a/.hidden.txt")
    open_train(data)
    assert "not read, by suffix: .txt 2, .gif 1, no suffix 1" in caplog.text
    assert "2 images outside class folders are not read" in caplog.text
    assert "folders that are not splits with class folders are not read: annotations" in caplog.text


def test_the_suffixes_of_torchvision_are_read_in_any_case(root, data) -> None:
    for number, suffix in enumerate(folder_scan.SUFFIXES):
        (root / f"train/a/{number}{suffix.upper()}").write_bytes(b"x")
    assert len(open_train(data)) == 2 + len(folder_scan.SUFFIXES)


def test_a_tidy_folder_is_opened_without_a_warning(data, caplog) -> None:
    open_train(data)
    open_eval(data)
    assert caplog.text == ""


def test_classes_without_evaluation_images_are_reported(root, data, caplog) -> None:
    make(root, "train/c/1.png", "train/d/1.png")
    (root / "val/d").mkdir()
    source = open_eval(data)
    assert source.class_names == ("a", "b", "c", "d")
    assert "2 of 4 classes have no image: c, d" in caplog.text


def test_classes_that_differ_only_by_case_or_accents_are_reported(tmp_path, caplog) -> None:
    data = make(
        tmp_path, "Cat/1.png", "cat/1.png", "caf\u00e9/1.png", "cafe\u0301/1.png", "x/1.png"
    )
    assert len(open_train(data).class_names) == 5
    assert "with similar names: Cat and cat, cafe\u0301 and caf\u00e9" in caplog.text


def test_class_names_are_utf8_and_file_names_anything(tmp_path) -> None:
    data = make(tmp_path, "a/1.png", "b/1.png")
    odd = os.fsencode(tmp_path / "a") + b"/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write((tmp_path / "a" / "1.png").read_bytes())
    source = open_train(data)
    assert len(source) == 3 and len(source.read(1).data) > 0
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    message = refusal(data)
    assert "'caf\\udce9'" in message and "is not UTF-8: rename it" in message


def test_a_class_named_like_a_split_is_reported(tmp_path, caplog) -> None:
    data = make(tmp_path, "cat/1.png", "dog/1.png", "test/1.png")
    assert open_train(data).class_names == ("cat", "dog", "test")
    assert "used as classes, but named like splits: test" in caplog.text


def test_a_folder_that_vanishes_is_one_line(root, data) -> None:
    source = open_source(data, split="train")
    for path in sorted(root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError):
        source.read(0)
    assert "no class folders" in refusal(data)
