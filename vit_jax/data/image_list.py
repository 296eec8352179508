"""Images of a folder with a map from file name to class, for datasets without class folders."""

import collections
import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vit_jax import plain_json
from vit_jax.data import identity
from vit_jax.data.record import UNKNOWN, Record
from vit_jax.text import shortened

T = TypeVar("T")
Find = Callable[[str], int]  # the class that a name means; raises ValueError if there is not one

_DIGITS = re.compile(r"-?[0-9]{1,18}")
ROWS = " labels"  # the part of an identity that covers every row; no name begins with a space


class ImageListSource:
    """The files that `labels` names, below `root`, in the order of the map."""

    def __init__(
        self,
        root: pathlib.Path,
        labels: Mapping[str, int | Sequence[int]],
        *,
        class_names: tuple[str, ...],
        name: str = "",
    ) -> None:
        """`name` is that of the split in messages; unset: `root`.

        Raises ValueError for a missing file, or a class that there is not.
        """
        self._root, self.name, self.class_names = root, name or str(root), class_names
        several = {n: (own,) if isinstance(own, int) else tuple(own) for n, own in labels.items()}
        self._items = list(several.items())
        self.multi_label = any(len(own) != 1 for own in several.values())
        if not root.is_dir():
            raise ValueError(f"{root} is not a folder of images")
        if outside := [name for name in several if not _is_below(name)]:
            raise ValueError(f"labelled files are not below {root}: {outside[0]!r}")
        if missing := [name for name in several if not os.path.isfile(root / name)]:
            raise ValueError(f"{len(missing)} labelled files are not in {root}: {missing[0]!r}")
        wrong = [
            f"{n}: {label}" for n, own in self._items for label in own if not self._known(label)
        ]
        if wrong:
            raise ValueError(f"labels outside the {len(class_names)} classes: {_short(wrong[0])}")

    @property
    def labels(self) -> np.ndarray:
        if self.multi_label:
            return np.array([self._row(own) for _, own in self._items])
        return np.array([own[0] for _, own in self._items], np.int32)

    def __len__(self) -> int:
        return len(self._items)

    def read(self, index: int) -> Record:
        _, own = self._items[index]
        path = self.path(index)
        data = pathlib.Path(path).read_bytes()
        return Record(data, self._row(own) if self.multi_label else own[0], path)

    def path(self, index: int) -> str:
        return str(self._root / self._items[index][0])

    def sample(self) -> list[int]:
        return []  # every image has a label

    def identity(self) -> identity.Identity:
        files = [os.path.join(self._root, name) for name, _ in self._items]
        # An image of several classes belongs to the part of no class; `ROWS` covers them all.
        labels = [own[0] if len(own) == 1 else UNKNOWN for _, own in self._items]
        found = identity.of_files(
            "image_list", files, labels, class_names=self.class_names, root=self._root
        )
        # The parts of classes do not say in which order the rows of the classes alternate.
        rows = identity.digest(f"{name} {own}" for name, own in self._items)
        parts = {**found.parts, ROWS: identity.Part(examples=0, digest=rows)}
        return identity.identify(
            "image_list", class_names=self.class_names, parts=parts, images=found.images
        )

    def _row(self, labels: tuple[int, ...]) -> np.ndarray:
        row = np.zeros(len(self.class_names), np.uint8)
        row[list(labels)] = 1
        return row

    def _known(self, label: int) -> bool:
        return 0 <= label < len(self.class_names)


def _is_below(name: str) -> bool:
    path = pathlib.PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def read_labels(
    path: pathlib.Path, *, class_names: Sequence[str] = (), find: Find | None = None
) -> dict[str, int]:
    """A map from file name to class index: a JSON object, or lines `NAME INDEX`.

    A text that is one of `class_names`, or a name that `find` knows, is that class, also if it
    consists of digits. Raises ValueError in one line if the file is not a map, names a file twice,
    or has a label that is neither an index nor a name.
    """
    return _read(path, find or _one_of(class_names), _index)


def read_label_sets(
    path: pathlib.Path, *, class_names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """As `read_labels`, with any number of labels: a list in JSON, or `NAME INDEX,INDEX`."""
    return _read(path, _one_of(class_names), _indices)


def _one_of(class_names: Sequence[str]) -> Find:
    counted = collections.Counter(class_names)
    numbers = {name: i for i, name in enumerate(class_names) if counted[name] == 1}
    known = " and not the name of one class" if numbers else ""

    def find(name: str) -> int:
        if name in numbers:
            return numbers[name]
        if _DIGITS.fullmatch(name):
            return int(name)
        raise ValueError(f"{_short(name)}, which is not an integer{known}")

    return find


def _read(path: pathlib.Path, find: Find, index: Callable[..., T]) -> dict[str, T]:
    if not path.is_file():
        raise ValueError(f"cannot read the labels {path}: it is not a file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the labels {path}: {error}") from error
    try:
        labels = _labels(_pairs(text), find, index)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a map of labels (JSON, or lines NAME INDEX): {error}"
        ) from error
    if not labels:
        raise ValueError(f"{path} holds no labels")
    return labels


def _pairs(text: str) -> Iterable[tuple[str, Any]]:
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark: save it as plain UTF-8")
    if not text.lstrip().startswith(("{", "[")):
        return _lines(text)
    content = plain_json.loads(text, unique_keys=True)
    if not isinstance(content, dict):
        raise ValueError("it is a list, not an object")
    return content.items()


def _lines(text: str) -> list[tuple[str, Any]]:
    """The last word of a line is the index: names may hold spaces."""
    pairs: list[tuple[str, Any]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        words = line.rsplit(maxsplit=1)
        if len(words) != 2:
            raise ValueError(f"{_short(line.strip())} has no index")
        pairs.append((words[0], words[1]))
    return pairs


def _labels(pairs: Iterable[tuple[str, Any]], find: Find, read: Callable[..., T]) -> dict[str, T]:
    labels: dict[str, T] = {}
    seen: set[str] = set()
    for name, index in pairs:
        path = os.path.normpath(name)
        if path in seen:
            raise ValueError(f"{name!r} has two labels")
        seen.add(path)
        labels[name] = read(name, index, find)
    return labels


def _index(name: str, value: Any, find: Find) -> int:
    """Accepts an integer of JSON (not true, 1.0 or 1_000), or a text that `find` knows."""
    if type(value) is int:
        return value
    problem = f"{_short(value)}, which is not an integer"
    if isinstance(value, str):
        try:
            return find(value)
        except ValueError as error:
            problem = str(error)
    raise ValueError(f"{_short(name)} has the label {problem}")


def _indices(name: str, value: Any, find: Find) -> tuple[int, ...]:
    """Accepts what `_index` accepts, a list of it, or texts that are joined by commas."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return (find(value),)
        value = value.split(",")
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_index(name, one, find) for one in values))


def _short(value: Any) -> str:
    return shortened(repr(value))
