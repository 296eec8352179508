"""Reads files of `torch.save` (the zip format and the older one) without PyTorch, and writes zip.

Both formats hold a pickle that describes tensors (see `torch_pickle`) and the raw storages that
the tensors view.
"""

import io
import math
import os
import pathlib
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Literal

import numpy as np

from vit_jax.checkpoints import torch_pickle
from vit_jax.checkpoints.torch_pickle import Storage, Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# Names of storages and dtypes -> NumPy dtypes. bfloat16 is read as 2-byte voids.
_KINDS = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "V2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPES = {
    **{"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": "V2", "bool": "?"},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1"},
    **{"uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1"},
}
# Tensors may share storages (expanded or tied tensors). Together they may not be larger than _SMALL
# bytes and _MAX_GROWTH times the file.
_MAX_GROWTH, _SMALL = 16, 2**26

Bytes = Callable[[str], bytes]  # returns the bytes of a storage, given its key


class TorchFile:
    """A file of `torch.save`. `content` is the saved object; `arrays` reads its tensors.

    Raises ValueError where the file is damaged or holds more than tensors and plain data.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.content: Any
        self._bytes: Bytes
        self._last = ("", memoryview(b""))
        self._file_size = path.stat().st_size
        self._order: Literal["<", ">"] = "<" if sys.byteorder == "little" else ">"
        if zipfile.is_zipfile(path):
            self._open_zip(path)
        else:
            self._open_legacy(path)

    def arrays(self, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """The values of tensors, by name; bfloat16 as 2-byte voids.

        Raises ValueError, before reading any, where all together are far larger than the file.
        """
        size = sum(math.prod(t.shape) * _dtype(t).itemsize for t in tensors.values())
        if size > max(_MAX_GROWTH * self._file_size, _SMALL):
            raise ValueError(
                f"its tensors would take {size} bytes, far more than the file, which no checkpoint"
                " needs"
            )
        # Ordered by storage, so that each storage is read once.
        ordered = sorted(tensors, key=lambda name: tensors[name].storage.key)
        found = {name: self._array(tensors[name]) for name in ordered}
        return {name: found[name] for name in tensors}

    def _array(self, tensor: Tensor) -> np.ndarray:
        storage, dtype = tensor.storage, _dtype(tensor).newbyteorder(self._order)
        size = storage.size if storage.kind in _KINDS else storage.size // dtype.itemsize
        count = math.prod(tensor.shape)
        last = tensor.offset + sum(
            (n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True)
        )
        if count and last >= size:
            raise ValueError("its pickle is damaged: a tensor reaches beyond its storage")
        if not count:
            return np.zeros(tensor.shape, dtype.newbyteorder("="))
        start = (storage.start + tensor.offset) * dtype.itemsize
        end = (storage.start + last + 1) * dtype.itemsize
        data = self._read(storage.key)[:end]
        if len(data) < end:
            raise ValueError("it is truncated: a tensor's numbers are missing")
        strides = [s * dtype.itemsize for s in tensor.strides]
        view: np.ndarray = np.ndarray(tensor.shape, dtype, data, start, strides)
        return view.astype(dtype.newbyteorder("="))

    def _read(self, key: str) -> memoryview:
        """The bytes of a storage. The last one is cached: several tensors may view it."""
        if self._last[0] != key:
            self._last = (key, memoryview(self._bytes(key)))
        return self._last[1]

    def _open_zip(self, path: pathlib.Path) -> None:
        archive = zipfile.ZipFile(path)
        found = [n for n in archive.namelist() if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(found) != 1:
            raise ValueError(
                f"it is a zip archive, but not of torch.save: it has {len(found)} files data.pkl,"
                " expected 1"
            )
        root = found[0].removesuffix("data.pkl")
        with archive.open(found[0]) as stream:
            self.content = torch_pickle.interpret(io.BytesIO(stream.read()))
        if f"{root}byteorder" in archive.namelist():
            self._order = "<" if archive.read(f"{root}byteorder") == b"little" else ">"

        def read(key: str) -> bytes:
            try:
                return archive.read(f"{root}data/{key}")
            except (KeyError, zipfile.BadZipFile, EOFError) as error:
                raise ValueError("it is damaged: a tensor's numbers cannot be read") from error

        self._bytes = read

    def _open_legacy(self, path: pathlib.Path) -> None:
        ranges: dict[str, tuple[int, int]] = {}  # start and end of every storage
        with path.open("rb") as stream:
            sizes = self._interpret_legacy(stream)
            for key, itemsize in sizes.items():
                head = stream.read(8)
                count = struct.unpack(self._order + "q", head)[0] if len(head) == 8 else -1
                start = stream.tell()
                end = start + count * itemsize
                if count < 0 or end > os.fstat(stream.fileno()).st_size:
                    raise ValueError("it is truncated: a tensor's numbers are missing")
                ranges[key] = start, end
                stream.seek(end)

        def read(key: str) -> bytes:
            start, end = ranges.get(key, (0, 0))
            with path.open("rb") as stream:
                stream.seek(start)
                return stream.read(end - start)

        self._bytes = read

    def _interpret_legacy(self, stream: BinaryIO) -> dict[str, int]:
        """Sets `content`. Returns the keys of the storages that follow, and their item sizes."""
        interpret = torch_pickle.interpret
        if interpret(stream) != _MAGIC or interpret(stream) != _PROTOCOL:
            raise ValueError("it holds a pickle, but not of torch.save")
        system = interpret(stream)
        storages: dict[str, Storage] = {}
        self.content = interpret(stream, storages=storages)
        keys = interpret(stream)
        named = isinstance(keys, list) and all(isinstance(key, str | int) for key in keys)
        if not isinstance(system, dict) or not named:
            raise ValueError("it holds a pickle, but not of torch.save")
        self._order = "<" if system.get("little_endian", True) else ">"
        kinds = {key: storages[key].kind if key in storages else "" for key in map(str, keys)}
        return {key: np.dtype(_KINDS.get(kind, "u1")).itemsize for key, kind in kinds.items()}


def _dtype(tensor: Tensor) -> np.dtype:
    """The NumPy dtype of a tensor. Raises ValueError for an unknown type."""
    kind = _KINDS.get(tensor.storage.kind) or _DTYPES.get(tensor.dtype)
    if kind is None:
        name = tensor.dtype or tensor.storage.kind.removesuffix("Storage")
        raise ValueError(f"it holds a tensor of type {name}, which cannot be read")
    return np.dtype(kind)


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], *, key: str = "") -> None:
    """Writes a file for `torch.load`: a dict of tensors, or {key: dict of tensors} with `key`.

    Integers and booleans become int64, all other numbers float32.
    """
    pickle = [b"\x80\x02"]
    if key:
        pickle += [b"}", _text(key)]
    pickle += [b"ccollections\nOrderedDict\n)R("]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, (name, array) in enumerate(arrays.items()):
            array = np.asarray(array)
            kind = "<i8" if array.dtype.kind in "iub" else "<f4"
            array = np.ascontiguousarray(array, kind).reshape(array.shape)
            pickle += [_text(name), _tensor_opcodes(str(i), array)]
            archive.writestr(f"archive/data/{i}", array.tobytes())
        pickle += [b"u", b"s" if key else b"", b"."]
        archive.writestr("archive/data.pkl", b"".join(pickle))
        archive.writestr("archive/byteorder", b"little")
        archive.writestr("archive/version", b"3\n")


def _tensor_opcodes(key: str, array: np.ndarray) -> bytes:
    """Opcodes that call `torch._utils._rebuild_tensor_v2` for a tensor with its own storage."""
    strides = [s // array.itemsize for s in array.strides]
    kind = b"LongStorage" if array.dtype.kind == "i" else b"FloatStorage"
    storage = [b"(", _text("storage"), b"ctorch\n" + kind + b"\n", _text(key), _text("cpu")]
    shape, steps = (b"(" + b"".join(map(_integer, n)) + b"t" for n in (array.shape, strides))
    return b"".join(
        [b"ctorch._utils\n_rebuild_tensor_v2\n(", *storage, _integer(array.size), b"tQ",
         _integer(0), shape, steps, b"\x89ccollections\nOrderedDict\n)RtR"]
    )  # fmt: skip


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data
