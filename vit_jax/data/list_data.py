"""A source of images whose classes are in lists, one or several classes for each image.

A folder holds the images, `classes.txt` with the name of a class on each line, and for each split a
list: `SPLIT.json`, {NAME: CLASS or [CLASSES]}, or `SPLIT.txt` with lines `NAME CLASS,CLASS,...`.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from vit_jax.data.image_list import ImageListSource, read_label_sets
from vit_jax.data.record import Source

_CLASSES = "classes.txt"
_SUFFIXES = (".json", ".txt")


def split_files(folder: str, suffixes: Sequence[str], *, what: str) -> dict[str, pathlib.Path]:
    """The file of each split in a folder, `SPLIT.SUFFIX`.

    Raises ValueError if there is no folder (`what` it should be), or two files of a split.
    """
    if not folder:
        raise ValueError(f"config.data.path is empty: name {what}")
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise ValueError(f"config.data.path {folder}: {error.strerror}") from error
    found: dict[str, pathlib.Path] = {}
    for name in files:
        split, suffix = os.path.splitext(name)
        if suffix not in suffixes:
            continue
        if split in found:
            raise ValueError(f"{folder} has two lists of the split {split}: remove one")
        found[split] = pathlib.Path(folder) / name
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListData:
    """Images with lists of their classes, one or several for each image."""

    path: str = ""  # folder of the images, of classes.txt, and of SPLIT.txt or SPLIT.json

    @property
    def label(self) -> str:
        return self.path

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return tuple(sorted(self._lists()))

    def open(self, split: str, *, train_split: str) -> Source:
        lists, names = self._lists(), self._class_names()
        if split not in lists:
            raise ValueError(
                f"{self.path} has no list of a split {split!r}, {split}.txt or {split}.json: there"
                f" are lists of {', '.join(sorted(lists)) or 'no splits'}"
            )
        labels = read_label_sets(lists[split], class_names=names)
        root = pathlib.Path(self.path)
        return ImageListSource(root, labels, class_names=names, name=f"{self.path} {split}")

    def _lists(self) -> dict[str, pathlib.Path]:
        """The file of each split. Raises ValueError if there is no folder, or two files."""
        what = f"a folder of images with {_CLASSES} and lists of their classes, such as train.txt"
        found = split_files(self.path, _SUFFIXES, what=what)
        return {split: path for split, path in found.items() if path.name != _CLASSES}

    def _class_names(self) -> tuple[str, ...]:
        """The names in classes.txt. Raises ValueError if it cannot be read, or names one twice."""
        path = pathlib.Path(self.path) / _CLASSES
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the names of the classes, {path}: {error}") from error
        names = tuple(line.strip() for line in lines if line.strip())
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{path} must name each class once, each on a line")
        return names
