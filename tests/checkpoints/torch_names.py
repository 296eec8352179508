"""Writes files like `torch.save`, without PyTorch: with Python's pickle, or from opcodes."""

import contextlib
import dataclasses
import io
import pathlib
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from vit_jax.checkpoints import files


@dataclasses.dataclass(eq=False)
class Storage:
    key: str
    kind: str
    numbers: np.ndarray


@dataclasses.dataclass
class Tensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (
            *(self.storage, self.offset, self.shape, self.strides),
            *(False, OrderedDict()),
        )


class TorchNames:
    """Pickles with the names of PyTorch's functions; PyTorch need not be installed."""

    def __init__(self, monkeypatch):
        names = {
            "torch": ["FloatStorage", "BFloat16Storage", "LongStorage"],
            "torch._utils": ["_rebuild_tensor_v2"],
        }
        for path, members in names.items():
            module = types.ModuleType(path)
            for name in members:
                setattr(module, name, type(name, (), {"__module__": path}))
            monkeypatch.setitem(sys.modules, path, module)

    def known(self, name):
        torch = sys.modules["torch"]
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def save(self, path, content, *, legacy, order="<"):
        stream = io.BytesIO()
        pickler: Any = pickle.Pickler(stream, protocol=2)
        storages = {}

        def persistent_id(value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            kind = getattr(sys.modules["torch"], value.kind)
            identity = ("storage", kind, value.key, "cpu", value.numbers.size)
            return (*identity, None) if legacy else identity

        pickler.persistent_id = persistent_id
        pickler.dump(content)

        def numbers(storage):
            return storage.numbers.astype(storage.numbers.dtype.newbyteorder(order)).tobytes()

        if not legacy:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", stream.getvalue())
                for storage in storages.values():
                    archive.writestr(f"archive/data/{storage.key}", numbers(storage))
                if order == ">":  # the default is little-endian
                    archive.writestr("archive/byteorder", b"big")
            return
        system = {"protocol_version": 1001, "little_endian": order == "<", "type_sizes": {}}
        parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)]
        parts += [stream.getvalue(), pickle.dumps(list(storages), 2)]
        for storage in storages.values():
            parts += [struct.pack(f"{order}q", storage.numbers.size), numbers(storage)]
        path.write_bytes(b"".join(parts))


def text(name: str) -> bytes:
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def tensor(size: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + integer(size)
    sizes, steps = (b"(" + b"".join(map(integer, n)) + b"t" for n in (shape, strides))
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(("
    return call + storage + b"tQ" + integer(offset) + sizes + steps + b"\x89)tR"


def pth(
    path: pathlib.Path,
    pickle: bytes,
    *,
    storage: bytes = bytes(16),
    method: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle + b".")
        archive.writestr("archive/data/0", storage)
    return path


def named(*tensors: bytes) -> bytes:
    return b"}(" + b"".join(text(f"t{i}") + t for i, t in enumerate(tensors)) + b"u"


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(ValueError) as error:
        files.read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@contextlib.contextmanager
def little_memory(most: int = 2**26) -> Iterator[None]:
    """Asserts that at most so many bytes are allocated at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
