"""Images of a folder with a map from file name to class: for sets that have no class folders."""

import json
import pathlib
from collections.abc import Mapping

from vit_jax.data.record import Record


class ImageListSource:
    """The files that `labels` names, below `root`, in the order of the map."""

    def __init__(
        self, root: pathlib.Path, labels: Mapping[str, int], *, class_names: tuple[str, ...]
    ) -> None:
        """Raises ValueError for a file that is not there or a class that the model has not."""
        self.name, self.class_names = str(root), class_names
        self._items = list(labels.items())
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder of images")
        if missing := [name for name, _ in self._items if not (root / name).is_file()]:
            raise ValueError(f"{len(missing)} labelled files are not in {root}: {missing[0]}, ...")
        wrong = [f"{name}: {label}" for name, label in self._items if not self._known(label)]
        if wrong:
            raise ValueError(f"labels outside the {len(class_names)} classes: {wrong[0]}")

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> Record:
        name, label = self._items[index]
        path = pathlib.Path(self.name) / name
        return Record(path.read_bytes(), label, str(path))

    def _known(self, label: int) -> bool:
        return 0 <= label < len(self.class_names)


def read_labels(path: pathlib.Path) -> dict[str, int]:
    """A map from file name to class index: a JSON object, or lines `NAME INDEX`.

    Raises ValueError in one line where the file is no such map.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the labels {path}: {error}") from error
    try:
        pairs = json.loads(text).items() if text.lstrip().startswith("{") else _lines(text)
        labels = {str(name): int(label) for name, label in pairs}
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is no map of labels, JSON or lines NAME INDEX: {error}"
        ) from error
    if not labels:
        raise ValueError(f"{path} holds no labels")
    return labels


def _lines(text: str) -> list[list[str]]:
    """The last word of a line is the index: names may hold spaces."""
    lines = [line.rsplit(maxsplit=1) for line in text.splitlines() if line.strip()]
    if short := [line for line in lines if len(line) != 2]:
        raise ValueError(f"{' '.join(short[0])!r} has no index")
    return lines
