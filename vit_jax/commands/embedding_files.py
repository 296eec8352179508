"""The files of `embed`: parts while it runs, and the file of all features at the end."""

import io
import json
import os
import pathlib
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vit_jax import plain_json
from vit_jax.checkpoints import npz_file
from vit_jax.data.image_files import ImageFiles
from vit_jax.errors import RunFailed
from vit_jax.workdir import place

SUFFIXES = (".parquet", ".npz")
_FACTS = "embed.json"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Part(NamedTuple):
    """The features of consecutive images."""

    features: np.ndarray  # (N, D), or (N, T, D)
    broken: np.ndarray  # bool (N,), whether an image cannot be read


def check(output: pathlib.Path, *, overwrite: bool) -> None:
    """Raises ValueError unless the file may be written."""
    if output.suffix not in SUFFIXES:
        raise ValueError(f"{output}: the name of the file must end in {' or '.join(SUFFIXES)}")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")
    if output.exists() and not (overwrite and output.is_file()):
        raise ValueError(f"{output} exists: choose another name, or give --overwrite")
    place.check_writable(output)


def parts_of(output: pathlib.Path) -> pathlib.Path:
    """The folder of the parts of a file."""
    return output.with_name(f"{output.name}.parts")


def open_parts(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Makes the folder of parts.

    Raises ValueError if it has parts of other features, is damaged, or cannot be written.
    """
    record = folder / _FACTS
    if record.exists():
        try:
            before = plain_json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{record} is damaged: {error}: remove the folder") from error
        if before != facts:
            other = [name for name in facts if not _same(before, facts, name)]
            raise ValueError(
                f"{folder} holds parts of other features (other {', '.join(other)}): repeat that"
                " command, or remove the folder"
            )
        return
    place.write_output(record, json.dumps(facts).encode())


def _same(before: Any, facts: dict[str, Any], name: str) -> bool:
    return isinstance(before, dict) and before.get(name) == facts[name]


def has_part(folder: pathlib.Path, number: int) -> bool:
    return _path(folder, number).exists()


def write_part(folder: pathlib.Path, number: int, part: Part, *, dtype: str) -> None:
    """Writes a part whole. Raises ValueError if it cannot be written."""
    buffer = io.BytesIO()
    np.savez(buffer, features=part.features.astype(dtype), broken=part.broken)
    place.write_output(_path(folder, number), buffer.getvalue())


def join(
    output: pathlib.Path, folder: pathlib.Path, source: ImageFiles, *, starts: range, dtype: str
) -> str:
    """Writes the file of all parts whole, removes them, and returns a summary.

    `starts` has the first image of each part. Raises RunFailed if parts are missing, or no image
    could be read, and ValueError if a part is damaged or the file cannot be written.
    """
    count = len(starts)
    if missing := [number for number in range(count) if not has_part(folder, number)]:
        raise RunFailed(
            f"{len(missing)} of {count} parts are not in {folder}: all processes must write to the"
            " same folder; the same command goes on"
        )

    def read() -> Iterator[Part]:
        shape: tuple[int, ...] | None = None  # of the features of an image
        for number, first in enumerate(starts):
            rows = len(source.files[first : first + starts.step])
            part = _read_part(_path(folder, number), rows=rows, dtype=dtype)
            shape = shape or part.features.shape[1:]
            if part.features.shape[1:] != shape:
                raise ValueError(f"{folder} is damaged: its parts have different shapes: remove it")
            yield part

    broken = sum(int(part.broken.sum()) for part in read())
    if broken == len(source):
        raise RunFailed(f"none of {broken} images in {source.name} could be read")
    temporary = output.with_name(f".{output.name}.{os.getpid()}")
    write = _write_npz if output.suffix == ".npz" else _write_parquet
    names = [name.encode("utf-8", "backslashreplace").decode() for name in source.files]
    try:
        with place.named_if_unwritable(output):
            write(temporary, names, read)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    shape = "x".join(map(str, next(read()).features.shape[1:]))
    shutil.rmtree(folder)
    left_out = f", {broken} of them broken" if broken else ""
    return f"{len(names)} images{left_out}, {shape} features each"


def _read_part(path: pathlib.Path, *, rows: int, dtype: str) -> Part:
    """A part of `rows` images. Raises ValueError if it is damaged."""
    try:
        arrays = npz_file.read(path)
        features, broken = arrays["features"], arrays["broken"]
        if features.shape[:1] != (rows,) or broken.shape != (rows,):
            found = f"{features.shape} and {broken.shape}"
            raise ValueError(f"it has arrays of the shapes {found} for {rows} images")
        if features.dtype != dtype or broken.dtype != bool:
            raise ValueError(f"its features are {features.dtype}, its marks {broken.dtype}")
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is damaged: remove it, the same command makes it again"
        ) from error
    return Part(features, broken)


def _path(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / f"{number:06d}.npz"


def _write_npz(path: pathlib.Path, names: list[str], read: Callable[[], Iterator[Part]]) -> None:
    """The arrays `features`, `broken` and `image`; only one part is in memory at a time."""
    first = next(read()).features
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        with file.open("features.npy", "w", force_zip64=True) as stream:
            header = np.lib.format.header_data_from_array_1_0(first)
            header["shape"] = (len(names), *first.shape[1:])
            np.lib.format.write_array_header_2_0(stream, header)
            for part in read():
                stream.write(np.ascontiguousarray(part.features).data.cast("B"))
        small = {
            "broken": np.concatenate([part.broken for part in read()]),
            "image": np.array(names),
        }
        for name, array in small.items():
            with file.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_parquet(
    path: pathlib.Path, names: list[str], read: Callable[[], Iterator[Part]]
) -> None:
    """The columns image, broken and features: lists of D numbers, or lists of T such lists."""
    import pyarrow  # slow to import
    from pyarrow import parquet

    writer, first = None, 0
    try:
        for part in read():
            column = pyarrow.array(part.features.reshape(-1))
            for length in reversed(part.features.shape[1:]):
                column = pyarrow.FixedSizeListArray.from_arrays(column, length)
            images = names[first : first + len(part.broken)]
            first += len(images)
            columns = {"image": images, "broken": part.broken, "features": column}
            table = pyarrow.table(columns)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer:
            writer.close()
