"""Files of `np.savez`, read only where every member is an array whose header tells the truth."""

import math
import pathlib
import warnings
import zipfile
from typing import IO

import numpy as np

from vit_jax.text import shortened

_MAGIC = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays by name. Raises ValueError for anything in the file that is no plain array."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it holds two arrays named {name}")
            with archive.open(entry) as stream:
                _check(stream, entry)
            with archive.open(entry) as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _check(stream: IO[bytes], entry: zipfile.ZipInfo) -> None:
    """Raises ValueError where the member is no array of numbers of just the member's size."""
    name = entry.filename
    if not name.endswith(".npy") or stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"it holds {name}, which is no array: remove it from the file")
    version = (*stream.read(2),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header of Python 2 is read, with a warning
            shape, _, dtype = _HEADERS[version](stream)
    except Exception as error:  # NumPy runs Python's parser over it, which raises many kinds
        raise ValueError(f"the header of {name} is damaged, or of no plain array") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not read: only numbers are")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != entry.file_size - stream.tell():
        raise ValueError(
            f"{name} claims the shape {_short(shape)} of {dtype}, {_short(size)} bytes, but holds"
            f" {entry.file_size - stream.tell()}"
        )


def _short(value: object) -> str:
    return shortened("over 2**64" if isinstance(value, int) and value >= 2**64 else str(value))
