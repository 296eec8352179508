"""A source of images that tables list: CSV or Parquet with a path and a class in each row."""

import csv
import dataclasses
import os
import pathlib
from typing import Any

from vit_jax.data.image_list import ImageListSource
from vit_jax.data.list_data import split_files
from vit_jax.data.record import Source
from vit_jax.text import few, shortened

_SUFFIXES = (".csv", ".parquet")
_WHAT = "a folder with a table of each split, such as train.csv and val.csv (or .parquet)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManifestData:
    """Images that the tables SPLIT.csv or SPLIT.parquet list, one in each row.

    The classes are the labels in the table of the training split, sorted: as numbers if all of them
    are whole numbers, else as text.
    """

    path: str = ""  # folder of the tables; paths in them are absolute, or relative to it
    path_column: str = "path"  # the column of the images
    label_column: str = "label"  # the column of the classes

    @property
    def label(self) -> str:
        return self.path

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return tuple(sorted(self._tables()))

    def open(self, split: str, *, train_split: str) -> Source:
        names = _classes(self._rows(train_split))
        numbers = {name: number for number, name in enumerate(names)}
        rows = self._rows(split)
        if unknown := sorted({label for label in rows.values() if label not in numbers}):
            raise ValueError(
                f"{self.path} {split} has {len(unknown)} classes that {train_split} does not have:"
                f" {few(unknown)}"
            )
        root = _root(pathlib.Path(self.path), list(rows))
        labels = {os.path.relpath(path, root): numbers[label] for path, label in rows.items()}
        return ImageListSource(root, labels, class_names=names, name=f"{self.path} {split}")

    def _tables(self) -> dict[str, pathlib.Path]:
        return split_files(self.path, _SUFFIXES, what=_WHAT)

    def _rows(self, split: str) -> dict[str, str]:
        """The class of each path of a split. Raises ValueError if the table is damaged."""
        tables = self._tables()
        if split not in tables:
            raise ValueError(
                f"{self.path} has no table of a split {split!r}, {split}.csv or {split}.parquet:"
                f" there are tables of {', '.join(sorted(tables)) or 'no splits'}"
            )
        table = tables[split]
        paths, labels = _columns(table, (self.path_column, self.label_column))
        rows: dict[str, str] = {}
        for number, (name, label) in enumerate(zip(paths, labels, strict=True), start=1):
            if not name or not label:
                raise ValueError(f"{table}: row {number} has no path or no class")
            path = os.path.abspath(os.path.join(self.path, name))
            if path in rows:
                raise ValueError(f"{table} has {shortened(repr(name))} twice")
            rows[path] = label
        if not rows:
            raise ValueError(f"{table} holds no rows")
        return rows


def _classes(rows: dict[str, str]) -> tuple[str, ...]:
    labels = set(rows.values())
    whole = all(label.isascii() and label.isdecimal() for label in labels)
    # Equal numbers, such as 1 and 01, are sorted as text: a set has no order of its own.
    return tuple(sorted(labels, key=lambda label: (int(label) if whole else 0, label)))


def _root(folder: pathlib.Path, paths: list[str]) -> pathlib.Path:
    """The folder of the tables, or the folder that holds all images if some are elsewhere."""
    inside = os.path.join(os.path.abspath(folder), "")
    if all(path.startswith(inside) for path in paths):
        return folder
    return pathlib.Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def _columns(table: pathlib.Path, names: tuple[str, str]) -> list[list[str]]:
    """Two columns of a table as text. Raises ValueError if it cannot be read or lacks one."""
    read = _parquet if table.suffix == ".parquet" else _csv
    try:
        header, columns = read(table)
        wanted = {name: columns[header.index(name)] for name in names if header.count(name) == 1}
        texts = {name: [_text(value) for value in column] for name, column in wanted.items()}
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are among them
        raise ValueError(f"cannot read the table {table}: {shortened(str(error))}") from error
    if missing := [name for name in names if name not in texts]:
        raise ValueError(
            f"{table} has {header.count(missing[0]) or 'no'} columns {missing[0]!r}: it has"
            f" {', '.join(header)}; name one with"
            f" config.data.{'path' if missing[0] == names[0] else 'label'}_column"
        )
    return [texts[name] for name in names]


def _csv(table: pathlib.Path) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns, and the values of each."""
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        lines = [row for row in rows if row]
    wrong = [number for number, row in enumerate(lines, start=1) if len(row) != len(header)]
    if wrong:
        raise ValueError(f"row {wrong[0]} has {len(lines[wrong[0] - 1])} of {len(header)} fields")
    return [name.strip() for name in header], [
        [row[i] for row in lines] for i in range(len(header))
    ]


def _parquet(table: pathlib.Path) -> tuple[list[str], list[list[Any]]]:
    from pyarrow import parquet  # slow to import

    found = parquet.read_table(table)
    return found.column_names, [column.to_pylist() for column in found.columns]


def _text(value: Any) -> str:
    """The text of a cell; "" for one without a value. Raises ValueError for what is no text."""
    if isinstance(value, list | dict | tuple):
        raise ValueError("a cell holds several values: for several classes use source=image_list")
    if value is None or value != value:  # NaN, which pandas writes for a missing value
        return ""
    if isinstance(value, float) and value.is_integer():  # a whole number beside missing values
        value = int(value)
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()
