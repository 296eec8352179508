"""Checksums of a checkpoint: written before it is committed, compared before it is read.

checksums.json in the folder of a step holds the step's number, and the size and checksum of every
file in the folder. Metrics that are added later count once it lists them.

Neither Orbax nor TensorStore offers this: chunks of arrays are written without checksums, and
checksums of chunks would not detect that a file was replaced by another of the same shapes. The
file that marks the commit, commit_success.txt, has no checksum: it is written later, and its
content is never read.
"""

import asyncio
import functools
import json
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import xxhash
from etils import epath
from jax.experimental import multihost_utils

from vit_jax import plain_json
from vit_jax.checkpoints.orbax import ocp
from vit_jax.workdir import place

NAME = "checksums.json"
ALGORITHM = "xxh3_128"  # checksums.json names the algorithm, so that it can change
METRICS = "metrics"  # Orbax's name of the item; a step can be used without its metrics
BLOCK = 2**18  # bytes read at once: they stay in the processor's cache
THREADS = 4
LONGEST = 400  # bytes of a message that one process sends to the other processes


class Damaged(ValueError):
    """A checkpoint differs from what was saved."""


def temporary_path(folder: epath.Path) -> type[Any]:
    """Orbax's class that commits checkpoints in `folder`, extended to write checksums first."""
    return _with_checksums(ocp.path.atomicity_defaults.get_default_temporary_path_class(folder))


class _WithChecksums:
    """Mixin for Orbax's classes that write a folder first and commit it when it is complete."""

    _metadata: Any = None

    @classmethod
    def from_final(cls, final_path: epath.Path, **options: Any) -> Any:
        # Without this, Orbax would add the time of the commit to its metadata after the checksums.
        metadata = options.pop("checkpoint_metadata_store", None)
        made = super().from_final(final_path, **options)  # type: ignore[misc]
        made._metadata = metadata
        return made

    async def finalize(self) -> None:
        # The folder is a step's (its name is a number), not an item's.
        if self.get_final().name.isdecimal():  # type: ignore[attr-defined]
            if self._metadata is not None:
                await asyncio.to_thread(self._metadata.wait_until_finished)
            await asyncio.to_thread(write, self.get(), step=int(self.get_final().name))  # type: ignore[attr-defined]
        await super().finalize()  # type: ignore[misc]


@functools.cache
def _with_checksums(committed: type[Any]) -> type[Any]:
    """`committed` is Orbax's class for a rename, or for a marker file as in a bucket."""
    return type("WithChecksums", (_WithChecksums, committed), {})


def write(folder: epath.Path, *, step: int) -> None:
    """Writes checksums.json of a step that is complete but not committed."""
    names = sorted(files(folder))
    found = dict(zip(names, _checksums(folder, names), strict=True))
    (folder / NAME).write_bytes(_content(found, step))


def add_metrics(folder: epath.Path, metrics: Mapping[str, float], *, step: int) -> None:
    """Adds metrics to a step that is committed, in the file in which Orbax keeps them.

    After a kill at any moment the step has no metrics, or all of them. Raises Damaged where
    checksums.json is.
    """
    known, name = _read(folder, step), f"{METRICS}/{METRICS}"
    (folder / METRICS).mkdir(exist_ok=True)
    place.write_whole(folder / name, json.dumps(dict(metrics)).encode())
    if known is not None:
        others = {n: found for n, found in known.items() if not n.startswith(f"{METRICS}/")}
        (added,) = _checksums(folder, [name])
        place.write_whole(folder / NAME, _content(others | {name: added}, step))


def has_metrics(folder: epath.Path, *, step: int) -> bool:
    """Whether metrics were saved with a step, or added to it. Raises Damaged."""
    if (files := _read(folder, step)) is None:
        return (folder / METRICS / METRICS).exists()
    return any(name.startswith(f"{METRICS}/") for name in files)


def _content(files: Mapping[str, tuple[int, str]], step: int) -> bytes:
    """checksums.json for these sizes and checksums."""
    fields = {"step": step, "algorithm": ALGORITHM, "files": dict(files)}
    return json.dumps(fields, indent=0).encode()


def verify(
    folder: epath.Path, *, step: int, items: Collection[str], share: tuple[int, int] = (0, 1)
) -> bool:
    """Compares the files of a step with its checksums; returns False where it has none.

    Reads the files at the top of the folder and those of `items`; for other items it only checks
    that the files exist. `share` (i, n) reads every n-th file from the i-th, so that n processes
    divide the work. Added files and missing metrics are ignored. Raises Damaged where a file
    differs from what was saved.
    """
    if (files := _read(folder, step)) is None:
        return False
    wanted = sorted(n for n in files if "/" not in n or n.split("/")[0] in items)
    others = [n for n in files if n not in wanted and not n.startswith(f"{METRICS}/")]
    for name in others:
        _size(folder, name)
    _compare(folder, wanted[share[0] :: share[1]], files)
    return True


def verify_metrics(folder: epath.Path, *, step: int) -> None:
    """Raises Damaged where the metrics of a step differ from what was saved."""
    if (files := _read(folder, step)) is not None:
        _compare(folder, [n for n in files if n.startswith(f"{METRICS}/")], files)


def verify_together(folder: epath.Path, *, step: int, items: Collection[str]) -> bool:
    """As `verify`, called by all processes: each reads its share, all return or raise the same."""
    problem, found = "", False
    try:
        share = (jax.process_index(), jax.process_count())
        found = verify(folder, step=step, items=items, share=share)
    except Damaged as error:
        problem = str(error)
    if problem := first_problem(problem):
        raise Damaged(problem)
    return found


def first_problem(problem: str) -> str:
    """The first message of a process that is not empty; "" if there is none. All must call it."""
    if jax.process_count() == 1:
        return problem
    text = np.zeros(LONGEST, np.uint8)
    coded = problem.encode()[:LONGEST]
    text[: len(coded)] = np.frombuffer(coded, np.uint8)
    rows = multihost_utils.process_allgather(text)
    problems = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]
    return next(filter(None, problems), "")


def _read(folder: epath.Path, step: int) -> dict[str, tuple[int, str]] | None:
    """(size, checksum) by file name; None without checksums.json. Raises Damaged."""
    path = folder / NAME
    if not path.exists():
        return None
    if not place.is_file(path):
        raise Damaged(f"{NAME} is not a file")
    try:
        held = plain_json.loads(path.read_text())
        files = {name: (size, text) for name, (size, text) in held["files"].items()}
        algorithm, saved_step = held["algorithm"], held["step"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{NAME} is damaged") from error
    if wrong := [name for name in files if not _is_inside(name)]:
        raise Damaged(f"{NAME} is damaged: {wrong[0]!a} is no file of a checkpoint")
    if algorithm != ALGORITHM:
        raise Damaged(f"{NAME} is damaged: it names the unknown algorithm {algorithm!r}")
    if saved_step != step:
        raise Damaged(f"it is the checkpoint of step {saved_step!r} under another name")
    return files


def _is_inside(name: str) -> bool:
    """Whether the name of a file, with "/" between folders, leads to no other folder."""
    return name.isprintable() and not {"", ".", ".."} & set(name.split("/"))


def _size(folder: epath.Path, name: str) -> int:
    """The bytes of a file. Raises Damaged where there is none."""
    try:
        return (folder / name).stat().length or 0  # a bucket's folder has none
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{name} is missing") from error
    except OSError as error:  # such as a name that is too long
        raise Damaged(f"{name}: {error.strerror or error}") from error


def _compare(folder: epath.Path, names: list[str], files: dict[str, tuple[int, str]]) -> None:
    """Raises Damaged where a file differs. Sizes come first, so that no other content is read."""
    for name in names:
        if (size := _size(folder, name)) != (saved := files[name][0]):
            raise Damaged(f"{name} has {size} bytes, {saved!r} were saved")
    for name, (_, text) in zip(names, _checksums(folder, names), strict=True):
        if text != files[name][1]:
            raise Damaged(f"{name} is damaged: its checksum differs from the saved one")


def files(folder: epath.Path, prefix: str = "") -> Iterator[str]:
    """Names of all files in a step's folder and below, without checksums.json."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path, f"{prefix}{path.name}/")
        elif prefix + path.name != NAME:
            yield prefix + path.name


def _checksums(folder: epath.Path, names: list[str]) -> list[tuple[int, str]]:
    """Sizes and checksums of files, each read once. Raises Damaged where one cannot be read."""

    def checksum(name: str) -> tuple[int, str]:
        digest, size = xxhash.xxh3_128(), 0
        try:
            with (folder / name).open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
                    size += len(block)
        except FileNotFoundError as error:
            raise Damaged(f"{name} is missing") from error
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror or error}") from error
        return size, digest.hexdigest()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(checksum, names))
