"""What `predict` does, once its arguments are read."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vit_jax.checkpoints import exported, store
from vit_jax.checkpoints.load import load
from vit_jax.commands import answer_files, image_paths, labelled_images
from vit_jax.commands.classifying import Best, predict
from vit_jax.text import printable, printable_json
from vit_jax.workdir import place

STDOUT = pathlib.Path("-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """What a model says of an image."""

    image: str
    workdir: str  # of the model
    best: Best | None  # None: the image cannot be read


def run(options: argparse.Namespace) -> int:
    """Prints or writes the classes of images. Returns the exit code."""
    if options.csv and options.csv != STDOUT:
        answer_files.check_target(options.csv, option="--csv", suffixes=(answer_files.CSV,))
    show, several, rows = None, len(options.workdir) > 1, []
    if not options.csv:
        show = _as_json if options.json else _as_text
    for row in _rows(options):
        rows.append(row)
        if show and row.best is not None:
            print(show(row, several))
    if options.csv:
        _write(options.csv, _table(rows, several=several))
    return 2 if any(row.best is None for row in rows) else 0


def _rows(options: argparse.Namespace) -> Iterator[Row]:
    """A row for each image and model; an image that cannot be read is reported on stderr."""
    named = list(image_paths.expanded(options.images))
    models = [load(path, step=step, substitute=True) for path, step in _steps(options)]
    paths = [path for path, problem in named if not problem]
    names = [labelled_images.lookup(model, options.classes).names for model in models]
    answers = predict(models, paths, top=options.top, names=names)
    for path, problem in named:
        found = problem or next(answers)[1]
        if isinstance(found, str):
            print(printable(f"vit_jax: {path}: {found}"), file=sys.stderr)
        for number, workdir in enumerate(options.workdir):
            best = None if isinstance(found, str) else found[number]
            yield Row(image=path, workdir=workdir, best=best)


def _steps(options: argparse.Namespace) -> list[tuple[str, store.Which]]:
    """Each model with the step to load. Beside a run, a model without steps is loaded as it is."""
    runs = [path for path in options.workdir if exported.is_trained(path)]
    return [(p, options.step if p in runs or not runs else "latest") for p in options.workdir]


def _as_text(row: Row, several: bool) -> str:
    shown = ", ".join(f"{name} {100 * p:.1f}%" for name, p in row.best or ())
    return printable(f"{row.image}: {row.workdir}: {shown}" if several else f"{row.image}: {shown}")


def _as_json(row: Row, several: bool) -> str:
    classes = [{"class": name, "probability": p} for name, p in row.best or ()]
    of_model = {"workdir": row.workdir} if several else {}
    return printable_json({"image": row.image, **of_model, "classes": classes})


def _write(path: pathlib.Path, table: dict[str, list[Any]]) -> None:
    content = answer_files.as_csv(table)
    if path == STDOUT and sys.stdout.isatty():  # another program gets the names as they are
        for line in content.decode().removesuffix("\n").split("\n"):
            print(printable(line))
    elif path == STDOUT:
        print(content.decode(), end="")
    else:
        place.write_output(path, content)


def _table(rows: Sequence[Row], *, several: bool) -> dict[str, list[Any]]:
    """The columns of `evaluate --predictions` without labels, and the model if `several`."""
    ok, broken = answer_files.OK, answer_files.BROKEN
    columns: dict[str, list[Any]] = {"image": [answer_files.text(row.image) for row in rows]}
    if several:
        columns["workdir"] = [answer_files.text(row.workdir) for row in rows]
    columns["status"] = [broken if row.best is None else ok for row in rows]
    for rank in range(max((len(row.best or ()) for row in rows), default=0)):
        best = [row.best[rank] if row.best and rank < len(row.best) else None for row in rows]
        columns |= answer_files.ranked(best, rank=rank)
    return columns
