"""Reads Flax's files, `flax_model.msgpack`: nested maps of arrays in MessagePack.

`flax.serialization` reads them too, but trusts them: a list of small objects takes a hundred times
the memory of the file, and a damaged array raises errors of many kinds.
"""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

Arrays = dict[str, np.ndarray]

# Codes of Flax's MessagePack extensions that hold an array.
_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"  # an array of more than a gigabyte, in parts

_DTYPES = {
    **{"float16": "f2", "float32": "f4", "float64": "f8", "bfloat16": "V2", "bool": "?"},
    **{"int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"},
    **{"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8"},
}
_MAX_ENTRIES, _MAX_MAPS, _MAX_DEPTH, _MAX_RANK = 10_000, 100_000, 64, 32


def begins(head: bytes) -> bool:
    """Whether a file that begins with `head` may be one: it begins with a map that is not empty."""
    return 0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF) if head else False


def read(path: pathlib.Path) -> Arrays:
    """All arrays by name, parts joined by dots; bfloat16 as 2-byte voids.

    Raises ValueError where the file is damaged or holds other values.
    """
    maps = 0

    def as_map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal maps
        maps += 1
        found = dict(pairs)
        if maps > _MAX_MAPS or len(found) < len(pairs):
            twice = maps <= _MAX_MAPS
            raise ValueError("it holds a name twice" if twice else "it holds too many maps")
        return found

    data = path.read_bytes()
    try:
        content = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=as_map,
            ext_hook=_array,
            max_array_len=0,
            max_bin_len=0,
            max_map_len=_MAX_ENTRIES,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"it is a damaged Flax file: {error or 'not MessagePack'}") from error
    arrays = dict(_flat(content, ())) if isinstance(content, dict) else {}
    if not arrays:
        raise ValueError("it holds no named arrays")
    return arrays


def _flat(content: dict[Any, Any], above: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    if len(above) > _MAX_DEPTH:
        raise ValueError("it is nested too deeply")
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError("it holds names that are not text")
        # In a sharded checkpoint the parts of a name are joined by slashes.
        name = (*above, key.replace("/", "."))
        if isinstance(value, dict) and _CHUNKED in value:
            yield ".".join(name), _joined(value)
        elif isinstance(value, dict):
            yield from _flat(value, name)
        elif isinstance(value, np.ndarray):
            yield ".".join(name), value
        elif isinstance(value, bool | int | float):  # such as a training step
            yield ".".join(name), np.asarray(value)
        else:
            raise ValueError(f"{'.'.join(name)!r} is not an array")


def _array(code: int, data: bytes) -> np.ndarray:
    """Unpacks an array of Flax: its shape, the name of its type, its bytes."""
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"it holds an extension of kind {code}, which is not an array")
    found = msgpack.unpackb(data, raw=True, max_array_len=_MAX_RANK, max_map_len=0, max_ext_len=0)
    if not isinstance(found, list) or len(found) != 3:
        raise ValueError("it holds a damaged array")
    shape, name, numbers = found
    if not isinstance(shape, list) or not isinstance(name, bytes) or not isinstance(numbers, bytes):
        raise ValueError("it holds a damaged array")
    kind = _DTYPES.get(name.decode(errors="replace"))
    if kind is None:
        raise ValueError(f"it holds an array of type {name!r}, which cannot be read")
    return _shaped(np.frombuffer(numbers, np.dtype(kind).newbyteorder("<")), shape)


def _joined(parts: dict[str, Any]) -> np.ndarray:
    """Joins an array that was packed in parts. Its lists are maps with numbers as keys."""
    shape, chunks = parts.get("shape"), parts.get("chunks")
    if not (isinstance(shape, dict) and isinstance(chunks, dict) and chunks):
        raise ValueError("it holds a damaged array")
    found = list(chunks.values())
    if not all(isinstance(chunk, np.ndarray) and chunk.ndim == 1 for chunk in found):
        raise ValueError("it holds a damaged array")
    return _shaped(np.concatenate(found), list(shape.values()))


def _shaped(numbers: np.ndarray, shape: list[Any]) -> np.ndarray:
    whole = all(type(side) is int and side >= 0 for side in shape)
    if not whole or len(shape) > _MAX_RANK or math.prod(shape) != numbers.size:
        raise ValueError("it holds a damaged array: its shape does not fit its data")
    return numbers.reshape(shape)
