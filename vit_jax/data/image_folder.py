"""Images in folders named by class: `root/CLASS/...` or `root/{train,val}/CLASS/...`."""

import collections
import dataclasses
import logging
import os
import pathlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from vit_jax.data import folder_scan, identity, split_names
from vit_jax.data.folder_scan import SUFFIXES
from vit_jax.data.record import Record
from vit_jax.text import few, printable

_LOG = logging.getLogger(__name__)
LAYOUT = "ROOT/CLASS/image.jpg, or ROOT/train/CLASS/image.jpg and ROOT/val/CLASS/image.jpg"
SHOWN = 5  # names in a message


class ImageFolder:
    """A dataset in folders; its classes are the sorted folder names of the training split.

    Folders that are named like splits (`split_names`) and hold class folders are splits. Hidden
    files are ignored. Folders below a class are searched too, also through links. Raises ValueError
    if `root` does not hold images in one of these layouts.
    """

    def __init__(self, root: str, *, train_split: str = "train") -> None:
        """`train_split`: the split that defines the classes, if several are named like it."""
        self.root = pathlib.Path(root)
        if not root:
            raise ValueError("config.data.path is empty: set it to the root of the image folder")
        if not os.path.isdir(root):
            raise ValueError(f"config.data.path {root} is not a folder: expected {LAYOUT}")
        self._names = folder_scan.folders(self.root)
        self.splits: tuple[str, ...] = ("train", "all")
        self._train = ""
        if self._looks_split():
            self._train = self._train_folder(train_split)
            self._classes = self._class_names(self.root / self._train)
            self.splits = (self._train, *self._other_splits())
        else:
            self._classes = self._class_names(self.root)

    def open(self, split: str) -> "ImageFolderSource":
        """The images of a split. Without split folders, `train` and `all` are all images.

        Logs a warning for files and folders that are found but not used.
        """
        name = self._resolve(split)
        if not self._train:
            return self._source(self.root, required=True, warn=name != "all")
        folder = self.root / name
        if unknown := [c for c in folder_scan.folders(folder) if c not in self._classes]:
            raise ValueError(
                f"{folder} has class folders that {self.root / self._train} does not have:"
                f" {_shown(unknown)}"
            )
        return self._source(folder, required=name == self._train, warn=True)

    def _looks_split(self) -> bool:
        """Whether the folders of the root are splits. Raises ValueError if that is not clear."""
        named = [name for name in self._names if split_names.kind(name)]
        nested = [name for name in named if folder_scan.folders(self.root / name)]
        others = [name for name in self._names if name not in named]
        if trains := [name for name in nested if split_names.kind(name) == "train"]:
            classes = folder_scan.folders(self.root / trains[0])
            unclear = others if len(nested) == 1 else []
            if mixed := [n for n in unclear if self._is_class_beside(n, classes)]:
                folder = self.root / trains[0]
                raise ValueError(
                    f"{folder} may be the training split, or a class beside {_shown(mixed)}: to"
                    f" train on its folders set config.data.path to {folder}, else rename it"
                )
            return True
        if others and nested:
            raise ValueError(
                f"{self.root / nested[0]} looks like a split, but is beside the folders"
                f" {_shown(others)}: move the classes into {self.root / 'train'}"
            )
        if named and not others:
            missing = f"{self.root} has no train folder with class folders in it"
            raise ValueError(f"{missing}, only {_shown(named)}: expected {LAYOUT}")
        return False

    def _is_class_beside(self, name: str, classes: Iterable[str]) -> bool:
        """Whether a folder holds images, and is not another split of these classes."""
        inside = folder_scan.folders(self.root / name)
        is_split = bool(inside) and set(inside) <= set(classes)
        return not is_split and bool(folder_scan.images(self.root / name).images)

    def _of_kind(self, kind: str) -> list[str]:
        """Folders of the root that are named like this kind of split and hold class folders."""
        found = split_names.preferred(self._names, kind)
        return [name for name in found if folder_scan.folders(self.root / name)]

    def _other_splits(self) -> list[str]:
        """The splits except the training split, found by name or by their class folders."""
        named = [n for kind in split_names.KINDS for n in self._of_kind(kind) if n != self._train]
        for name in self._names:
            if split_names.kind(name):
                continue
            try:
                inside = folder_scan.folders(self.root / name)
            except ValueError:
                continue  # not readable: opening the split reports that
            if inside and set(inside) <= set(self._classes):
                named.append(name)
        return named

    def _train_folder(self, wanted: str) -> str:
        """The training split. Raises ValueError if several folders could be it."""
        found = self._of_kind("train")
        if len(found) > 1 and wanted not in found:
            names = " and ".join(found)
            raise ValueError(f"{self.root} has {names}: set config.data.train_split to one of them")
        return wanted if wanted in found else found[0]

    def _resolve(self, split: str) -> str:
        """The split with this name, else the only split of the same kind."""
        kind = split_names.kind(split)
        alike = [name for name in self.splits if kind and split_names.kind(name) == kind]
        if split in self.splits:
            return split
        if self._train and len(alike) == 1:
            return alike[0]
        raise ValueError(self._no_split(split))

    def _no_split(self, split: str) -> str:
        known = f"there are {', '.join(self.splits)}"
        return f"{self.root} has no split {split!r}: {known}; expected {LAYOUT}"

    def _class_names(self, folder: pathlib.Path) -> tuple[str, ...]:
        classes = folder_scan.folders(folder)
        if not classes:
            raise ValueError(f"{folder} has no class folders: expected {LAYOUT}")
        if wrong := [name for name in classes if not _is_utf8(name)]:
            raise ValueError(f"the class folder {wrong[0]!r} in {folder} is not UTF-8: rename it")
        if _split_like(classes):
            raise ValueError(
                f"the folders in {folder} look like splits, not classes: {_shown(classes)};"
                f" set config.data.path to {folder}, or rename them"
            )
        if len(classes) == 1:
            inside = folder_scan.folders(folder / classes[0])
            remedy = f"set config.data.path to {folder / classes[0]}" if len(inside) > 1 else ""
            raise ValueError(
                f"{folder} has a single class folder, {classes[0]}: at least 2 are needed,"
                f" {remedy or 'expected ' + LAYOUT}"
            )
        return classes

    def _source(self, folder: pathlib.Path, *, required: bool, warn: bool) -> "ImageFolderSource":
        """`required`: every class must have images. `warn`: log what is found but not used."""
        scans: dict[str, folder_scan.Scan] = {}
        present = folder_scan.folders(folder)
        around = {self.root, folder}
        for name in self._classes:
            there = name in present
            scans[name] = (
                folder_scan.images(folder / name, around=around) if there else folder_scan.Scan()
            )
            if required and _split_like(inside := scans[name].folders):
                raise ValueError(
                    f"{folder / name} holds folders that look like splits ({_shown(inside)}), and"
                    f" would be trained as one class: expected {LAYOUT}"
                )
            if required and not scans[name].images:
                raise ValueError(
                    f"{folder / name} holds no image ({' '.join(SUFFIXES)}):"
                    " add some or remove the folder"
                )
        files = [path for scan in scans.values() for path in scan.images]
        if not files:
            raise ValueError(f"{folder} holds no image ({' '.join(SUFFIXES)}) in a class folder")
        if warn:
            self._warn_unused(folder, scans)
        counts = [len(scan.images) for scan in scans.values()]
        return ImageFolderSource(
            name=str(folder),
            class_names=self._classes,
            files=files,
            labels=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        )

    def _warn_unused(self, folder: pathlib.Path, scans: dict[str, folder_scan.Scan]) -> None:
        """Logs what a user may have expected to be used, but is not."""
        others = sum((scan.others for scan in scans.values()), collections.Counter[str]())
        empty = [name for name, scan in scans.items() if not scan.images]
        alike = _alike(self._classes)
        loops = [path for scan in scans.values() for path in scan.loops]
        loose = sum(folder_scan.loose_images(path) for path in {folder, self.root})
        unused = [n for n in self._names if self._train and n not in self.splits]
        like_splits = [n for n in self._classes if not self._train and split_names.kind(n)]
        counted = ", ".join(f"{suffix} {count:,}" for suffix, count in others.most_common(SHOWN))
        facts = (
            (others, f"files that are not read, by suffix: {counted}"),
            (loose, f"{loose:,} images outside class folders are not read"),
            (
                unused,
                f"folders that are not splits with class folders are not read: {_shown(unused)}",
            ),
            (like_splits, f"used as classes, but named like splits: {_shown(like_splits)}"),
            (loops, f"links to a folder that contains them are not followed: {_shown(loops)}"),
            (empty, f"{len(empty)} of {len(scans)} classes have no image: {_shown(empty)}"),
            (alike, f"different classes with similar names: {_shown(alike)}"),
        )
        for there, fact in facts:
            if there:
                _LOG.warning("%s: %s", printable(folder), printable(fact))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolderSource:
    """The images of one split, sorted by class, then by path."""

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

    def path(self, index: int) -> str:
        return self.files[index]

    def sample(self) -> list[int]:
        return []  # every image has a label

    def identity(self) -> identity.Identity:
        return identity.of_files(
            "image_folder", self.files, self.labels, class_names=self.class_names, root=self.name
        )


def _split_like(folders: Sequence[str]) -> bool:
    return len(folders) > 1 and all(map(split_names.kind, folders))


def _is_utf8(name: str) -> bool:
    return not any(0xD800 <= ord(letter) < 0xE000 for letter in name)


def _alike(names: Iterable[str]) -> list[str]:
    """Groups of names that differ only in case, or in how accents are encoded."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return [" and ".join(group) for group in groups.values() if len(group) > 1]


def _shown(names: Iterable[str]) -> str:
    return few(names, SHOWN)
