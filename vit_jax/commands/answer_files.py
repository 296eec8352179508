"""What `evaluate` writes and prints of the answers for each image: files, and tables of classes."""

import csv
import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data.record import path_of
from vit_jax.evaluators.answers import PerImage
from vit_jax.workdir import place

CSV, PARQUET = ".csv", ".parquet"
OK, BROKEN, UNLABELLED = "ok", "broken", "unlabelled"


def check_target(path: pathlib.Path | None, *, option: str, suffixes: Sequence[str]) -> None:
    """Raises ValueError unless a file with this name can be written."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{option} {path}: the name of the file must end in {_or(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"{option} {path}: {reason}")
    place.check_writable(path)


def write_predictions(path: pathlib.Path, answers: PerImage, names: Sequence[str]) -> None:
    """Writes a row for each image, in the order of the split, as CSV or Parquet."""
    columns = prediction_columns(answers, names)
    write = _parquet if path.suffix == PARQUET else as_csv
    place.write_output(path, write(columns))


def prediction_columns(answers: PerImage, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of N rows: image, status, label, and of each answer its class and probability.

    The answers are `predicted` and `probability`, then `predicted_2` and `probability_2` and so on.
    A value that is not known is None.
    """
    number = range(len(answers.labels))
    counted, broken = answers.counted, answers.broken
    columns: dict[str, list[Any]] = {
        "image": [text(path_of(answers.source, i)) for i in number],
        "status": [OK if counted[i] else BROKEN if broken[i] else UNLABELLED for i in number],
        "label": [text(names[int(answers.labels[i])]) if counted[i] else None for i in number],
    }
    for rank in range(answers.classes.shape[1]):
        best, share = answers.classes[:, rank], answers.probabilities[:, rank]
        columns |= ranked(
            [(names[int(best[i])], float(share[i])) if counted[i] else None for i in number],
            rank=rank,
        )
    return columns


def ranked(best: Sequence[tuple[str, float] | None], *, rank: int) -> dict[str, list[Any]]:
    """The columns of the class and its probability that rows have at a rank, the best being 0."""
    suffix = f"_{rank + 1}" if rank else ""
    return {
        f"predicted{suffix}": [text(one[0]) if one else None for one in best],
        # the 7 digits that float32 has
        f"probability{suffix}": [float(f"{one[1]:.7g}") if one else None for one in best],
    }


def per_class(answers: PerImage, names: Sequence[str]) -> list[dict[str, Any]]:
    """The number of images and the top-1 of each class that has images, by class number."""
    images, hits = answers.per_class(len(names))
    return [
        {"class": names[int(i)], "images": int(images[i]), "top1": float(hits[i] / images[i])}
        for i in np.flatnonzero(images)
    ]


def per_class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `per_class` as lines of text."""
    names = [str(row["class"]) for row in rows]
    width = max(len("class"), *map(len, names)) if names else 0
    lines = [f"{'class':{width}}  images    top-1"]
    lines += [
        f"{name:{width}} {row['images']:7} {100 * row['top1']:7.2f}%"
        for name, row in zip(names, rows, strict=True)
    ]
    return "\n".join(lines)


def write_confusion(path: pathlib.Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Writes a confusion matrix (K, K) as CSV: a row for each label, a column for each answer."""
    shown = [*map(text, names)]
    rows = ([name, *row] for name, row in zip(shown, counts.tolist(), strict=True))
    place.write_output(path, _csv([["label", *shown], *rows]))


def as_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    return _csv([[*columns], *zip(*columns.values(), strict=True)])


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode()


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    import pyarrow  # slow to import
    from pyarrow import parquet

    kinds = {
        name: pyarrow.float32() if name.startswith("probability") else pyarrow.string()
        for name in columns
    }
    table = pyarrow.table(
        {name: pyarrow.array(values, kinds[name]) for name, values in columns.items()}
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def text(name: str) -> str:
    """A name that UTF-8 can hold: names of files need not be UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def _or(words: Sequence[str]) -> str:
    return " or ".join(words)
