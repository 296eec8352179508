"""A source of images whose classes are in lists, one or several classes for each image.

A folder holds the images, `classes.txt` with the name of a class on each line, and for each split a
list: `SPLIT.json`, {NAME: CLASS or [CLASSES]}, or `SPLIT.txt` with lines `NAME CLASS,CLASS,...`.
"""

import dataclasses
import os
import pathlib

from vit_jax.data.image_list import ImageListSource, read_label_sets
from vit_jax.data.record import Source

_CLASSES = "classes.txt"
_SUFFIXES = (".json", ".txt")


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
        if not self.path:
            raise ValueError(
                f"config.data.path is empty: name a folder of images with {_CLASSES} and lists of"
                " their classes, such as train.txt"
            )
        try:
            files = sorted(entry.name for entry in os.scandir(self.path) if entry.is_file())
        except OSError as error:
            raise ValueError(f"config.data.path {self.path}: {error.strerror}") from error
        found: dict[str, pathlib.Path] = {}
        for name in files:
            split, suffix = os.path.splitext(name)
            if suffix not in _SUFFIXES or name == _CLASSES:
                continue
            if split in found:
                raise ValueError(f"{self.path} has two lists of the split {split}: remove one")
            found[split] = pathlib.Path(self.path) / name
        return found

    def _class_names(self) -> tuple[str, ...]:
        """The names in classes.txt. Raises ValueError if it cannot be read, or names one twice."""
        path = pathlib.Path(self.path) / _CLASSES
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the names of the classes, {path}: {error}") from error
        names = tuple(line.strip() for line in lines if line.strip())
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{path} must name each class once, each on a line")
        return names
