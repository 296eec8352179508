"""Images in folders named by class: `root/CLASS/...` or `root/{train,val}/CLASS/...`."""

import dataclasses
import os
import pathlib

import numpy as np

from vit_jax.data.record import Record

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SPLITS = ("train", "val", "validation", "test")
LAYOUT = "ROOT/CLASS/image.jpg, or ROOT/train/CLASS/image.jpg and ROOT/val/CLASS/image.jpg"


class ImageFolder:
    """A dataset in folders; its classes are the sorted folder names of the training split.

    Hidden files are ignored, folders below a class are searched. Raises ValueError where `root`
    is not such a folder.
    """

    def __init__(self, root: str) -> None:
        self.root = pathlib.Path(root)
        if not root:
            raise ValueError("config.data.path is empty: set it to the root of the image folder")
        if not self.root.is_dir():
            raise ValueError(f"config.data.path {root} is not a folder: expected {LAYOUT}")
        self.split = bool(_folders(self.root / "train"))
        self.splits: tuple[str, ...] = ("train", "all")
        if self.split:
            self.splits = tuple(s for s in SPLITS if (self.root / s).is_dir())

    def open(self, split: str) -> "ImageFolderSource":
        """The images of a split. Without split folders, `train` and `all` are every image."""
        if split not in self.splits:
            known = f"there are {', '.join(self.splits)}"
            raise ValueError(f"{self.root} has no split {split!r}: {known}; expected {LAYOUT}")
        if not self.split:
            return self._source(self.root, self._classes(self.root), split)
        classes = self._classes(self.root / "train")
        folder = self.root / split
        if unknown := [c for c in _folders(folder) if c not in classes]:
            raise ValueError(
                f"{folder} has class folders that {self.root / 'train'} has not:"
                f" {', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}"
            )
        return self._source(folder, classes, split)

    def _classes(self, folder: pathlib.Path) -> tuple[str, ...]:
        classes = _folders(folder)
        if not classes:
            raise ValueError(f"{folder} has no class folders: expected {LAYOUT}")
        if not self.split and set(classes) <= set(SPLITS):
            raise ValueError(f"{folder} has no train folder beside {', '.join(classes)}: {LAYOUT}")
        if len(classes) == 1:
            raise ValueError(
                f"{folder} has a single class folder, {classes[0]}: at least 2 are needed,"
                f" expected {LAYOUT}"
            )
        return classes

    def _source(
        self, folder: pathlib.Path, classes: tuple[str, ...], split: str
    ) -> "ImageFolderSource":
        files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            found = _images(folder / name)
            if not found and split in ("train", "all"):
                raise ValueError(
                    f"{folder / name} holds no image ({' '.join(SUFFIXES)}):"
                    " add some or remove the folder"
                )
            files += found
            labels += [label] * len(found)
        if not files:
            raise ValueError(f"{folder} holds no image ({' '.join(SUFFIXES)}) in a class folder")
        return ImageFolderSource(
            name=str(folder),
            class_names=classes,
            files=files,
            labels=np.asarray(labels, np.int32),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolderSource:
    """The images of one split, by class, then by path."""

    name: str
    class_names: tuple[str, ...]
    files: list[str]
    labels: np.ndarray  # int32 (N,)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Record:
        path = self.files[index]
        with open(path, "rb") as file:
            return Record(file.read(), int(self.labels[index]), path)


def _folders(folder: pathlib.Path) -> tuple[str, ...]:
    """Sorted names of the visible folders in `folder`, none where it does not exist."""
    if not folder.is_dir():
        return ()
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.is_dir() and e.name[0] != "."))


def _images(folder: pathlib.Path) -> list[str]:
    """Paths of the images anywhere below `folder`, in an order every file system agrees on."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        for name in files:
            if name[0] != "." and name.lower().endswith(SUFFIXES):
                found.append(os.path.join(parent, name))
    return sorted(found)
