"""Reads files of `np.savez`. Every member must be an array with a header that fits its size."""

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
    """All arrays by name. Raises ValueError where a member of the file is not a plain array."""
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
    """Raises ValueError unless the member is an array of numbers that fills the member."""
    name = entry.filename
    if not name.endswith(".npy") or stream.read(len(_MAGIC)) != _MAGIC:
        raise ValueError(f"it holds {name}, which is not an array: remove it from the file")
    version = (*stream.read(2),)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers written by Python 2
            shape, _, dtype = _HEADERS[version](stream)
    except Exception as error:  # NumPy runs Python's parser on it, which raises many kinds
        raise ValueError(f"the header of {name} is damaged or not that of an array") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects: only numbers can be read")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != entry.file_size - stream.tell():
        raise ValueError(
            f"{name} has the shape {_short(shape)} of {dtype} in its header, {_short(size)} bytes,"
            f" but holds {entry.file_size - stream.tell()} bytes"
        )


def _short(value: object) -> str:
    return shortened("over 2**64" if isinstance(value, int) and value >= 2**64 else str(value))
