"""A file with the answer of a teacher for every training image; `vit_jax label` writes it once.

It is a .safetensors file with one array, whose rows have the order of the images in the split:
`classes` int32 (N,), or `logits` float16 (N, K). Its metadata name the images and the teacher.
Shapes: N images, K classes.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from vit_jax import plain_json
from vit_jax.checkpoints import classes as classes_lib
from vit_jax.data.identity import Identity
from vit_jax.data.record import UNKNOWN, DataFacts
from vit_jax.objectives import Objective, TableFile
from vit_jax.workdir import place

_KIND = "answers of a teacher"
# What safetensors raises for damaged files, and for types of numbers that NumPy lacks.
_UNREADABLE = (OSError, ValueError, AttributeError, TypeError, safetensors.SafetensorError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answers:
    """The content of a file. An image that could not be read has UNKNOWN, or logits of NaN."""

    rows: np.ndarray  # int32 (N,) or float16 (N, K)
    class_names: tuple[str, ...]
    data: str  # digest of the split
    teacher: str  # its path and digest

    @property
    def digest(self) -> str:
        """A checksum of the rows."""
        return f"{zlib.crc32(np.ascontiguousarray(self.rows).data):08x}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The rows of a file as a run uses them."""

    path: str
    digest: str  # of the rows in the file
    teacher: str  # its path and digest
    # Classes int32 (N,) or logits float16 (N, K), in the order of the run's classes.
    rows: np.ndarray

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one row."""
        return jax.ShapeDtypeStruct(self.rows.shape[1:], self.rows.dtype)


def write(path: str | os.PathLike[str], answers: Answers) -> None:
    """Writes a file, as a whole or not at all. Raises ValueError if that fails."""
    metadata = {
        "kind": _KIND,
        "data": answers.data,
        "class_names": json.dumps(answers.class_names),
        "teacher": answers.teacher,
        "digest": answers.digest,
    }
    name = "logits" if answers.rows.ndim == 2 else "classes"
    content = safetensors_numpy.save({name: answers.rows}, metadata=metadata)
    place.write_output(path, content)


def read(path: str | os.PathLike[str]) -> Answers:
    """The content of a file. Raises ValueError if it is missing, damaged, or of another kind."""
    with place.reading(path) as here:
        if not here.is_file():
            raise ValueError(f"there is no file {path}: make it with vit_jax label")
        try:
            with safetensors.safe_open(here, framework="numpy") as file:
                metadata, names = file.metadata() or {}, list(file.keys())
                if metadata.get("kind") != _KIND or names not in (["classes"], ["logits"]):
                    raise ValueError("it was not made by vit_jax label")
                rows = file.get_tensor(names[0])
        except _UNREADABLE as error:
            raise ValueError(f"{path} has no answers of a teacher: {error}") from error
    try:
        answers = Answers(
            rows=rows,
            class_names=tuple(map(str, plain_json.loads(metadata["class_names"]))),
            data=metadata["data"],
            teacher=metadata["teacher"],
        )
        whole = metadata["digest"] == answers.digest and _is_table(answers)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is damaged: restore it, or make it again with vit_jax label")
    return answers


def _is_table(answers: Answers) -> bool:
    rows, count = answers.rows, len(answers.class_names)
    if rows.ndim == 2:
        if rows.dtype != np.float16 or rows.shape[1] != count:
            return False
        return not bool(np.isinf(rows).any())
    known = rows.dtype == np.int32 and rows.ndim == 1
    return known and bool(np.all((rows >= UNKNOWN) & (rows < count)))


def tables(objective: Objective, facts: DataFacts, identity: Identity) -> dict[str, Table]:
    """The tables that the objective names, for data with these facts.

    Raises ValueError if a file cannot be read, or is of other images or classes.
    """
    return {
        name: _table(wanted, f"config.objective.{wanted.field}", facts, identity)
        for name, wanted in objective.tables().items()
    }


def _table(wanted: TableFile, field: str, facts: DataFacts, identity: Identity) -> Table:
    try:
        answers = read(wanted.path)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
    match = classes_lib.match(
        answers.class_names,
        facts.class_names,
        their_count=len(answers.class_names),
        our_count=facts.num_classes,
    )
    other = ""
    if len(answers.rows) != facts.train_size:
        other = f"{len(answers.rows)} images there, {facts.train_size} here"
    elif not match.kept:
        other = match.note
    elif answers.data != identity.digest:
        other = "the digests of the images differ"
    if other:
        raise ValueError(
            f"{field} ({wanted.path}) was made for other data ({other}): make it again with"
            " vit_jax label"
        )
    if wanted.logits and answers.rows.ndim == 1:
        raise ValueError(
            f"{field} ({wanted.path}) has classes, and logits are needed: make it again with"
            " vit_jax label --logits"
        )
    rows = answers.rows if wanted.logits else as_classes(answers.rows)
    if match.kind == "reordered":
        rows = _reordered(rows, match.rows)
    return Table(path=wanted.path, digest=answers.digest, teacher=answers.teacher, rows=rows)


def as_classes(rows: np.ndarray) -> np.ndarray:
    """Classes int32 (N,) as they are; of logits (N, K) the largest, UNKNOWN where they are NaN."""
    if rows.ndim == 1:
        return rows
    best = rows.argmax(axis=1).astype(np.int32)
    return np.where(np.isnan(rows).any(axis=1), np.int32(UNKNOWN), best)


def _reordered(rows: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """The rows for classes in another order: `order` has the old number of each new class."""
    if rows.ndim == 2:
        return rows[:, list(order)]
    numbers = np.full(len(order) + 1, UNKNOWN, np.int32)  # the last one is at the index UNKNOWN
    numbers[list(order)] = np.arange(len(order))
    return numbers[rows]


def notes(tables: Mapping[str, Table]) -> tuple[str, ...]:
    """A line for each file: whose answers it has."""
    return tuple(
        f"note: {table.path} has the answers of {table.teacher} for the centre of each image"
        for table in tables.values()
    )


def recorded(tables: Mapping[str, Table], objective: Objective) -> dict[str, Any]:
    """The tables by the fields that name their files, as `frozen.json` records them."""
    return {objective.tables()[name].field: table for name, table in tables.items()}
