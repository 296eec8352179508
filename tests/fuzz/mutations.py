"""Ways to damage a file: at any bytes, or with checksums and lengths that still fit."""

import copy
import io
import json
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
           2**40, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Makes one to three changes of bytes at any position."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_BYTES)(bytearray(data), rng)
    return data


def _position(data: bytearray, rng: random.Random) -> int:
    """A random position, often near the beginning or the end, where the headers are."""
    size = max(len(data), 1)
    where = rng.random()
    if where < 0.3:
        return min(rng.randrange(64), size - 1)
    return max(0, size - 1 - rng.randrange(64)) if where < 0.45 else rng.randrange(size)


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 4, 32)) if data else 0):
        data[_position(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, rng: random.Random) -> bytes:
    at, size = _position(data, rng), rng.randrange(1, 40)
    fill = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    data[at : at + size] = fill[: len(data) - at]
    return bytes(data)


def _number(data: bytearray, rng: random.Random) -> bytes:
    """Replaces an integer of 1 to 8 bytes in either byte order, such as a length."""
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 2 ** (8 * width)
    at = _position(data, rng)
    data[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return bytes(data[: rng.randrange(len(data) + 1)])
    at = _position(data, rng)
    del data[at : at + rng.choice((1, 2, 8, 100, 1000))]
    return bytes(data)


def _insert(data: bytearray, rng: random.Random) -> bytes:
    at = _position(data, rng)
    size = rng.choice((1, 4, 16, 300))
    data[at:at] = rng.choice((rng.randbytes(size), bytes(size), b"A" * size))
    return bytes(data)


def _repeat(data: bytearray, rng: random.Random) -> bytes:
    first, last = sorted((_position(data, rng), _position(data, rng)))
    return bytes(data[:last] + data[first:last] * rng.choice((1, 1, 3)) + data[last:])


def _swap(data: bytearray, rng: random.Random) -> bytes:
    a, b = sorted((_position(data, rng), _position(data, rng)))
    size = min(rng.randrange(1, 64), b - a)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return bytes(data)


def _digit(data: bytearray, rng: random.Random) -> bytes:
    digits = [i for i, byte in enumerate(data[:20_000]) if 48 <= byte < 58]
    for at in rng.sample(digits, min(len(digits), rng.choice((1, 2, 5)))):
        data[at] = rng.choice(b"0123456789-.eE")
    return bytes(data)


_BYTES: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    *(_flip, _flip, _overwrite, _number, _number, _cut, _insert, _repeat, _swap, _digit),
)


# -- JSON


def odd_json(text: str, rng: random.Random) -> bytes:
    """A JSON text with damaged bytes, or with values replaced by values of other kinds."""
    if rng.random() < 0.3:
        return damaged(text.encode(), rng)
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        content = _changed(content, rng)
    return json.dumps(content).encode()


def _changed(content: Any, rng: random.Random) -> Any:
    places: list[tuple[Any, Any]] = []
    waiting = [content] if isinstance(content, dict | list) else []
    while waiting:
        value = waiting.pop()
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            places.append((value, key))
            if isinstance(value[key], dict | list):
                waiting.append(value[key])
    if not places or rng.random() < 0.03:
        return rng.choice(_VALUES)(rng, content)
    holder, key = rng.choice(places)
    how = rng.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.25 and isinstance(holder, dict):
        holder[rng.choice(("", "image_size", "\x1b[31m", key + "x", "0"))] = holder.pop(key)
    else:
        holder[key] = rng.choice(_VALUES)(rng, holder[key])
    return content


def _deep(rng: random.Random, value: Any) -> Any:
    for _ in range(rng.choice((5, 90, 300))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


_CONSTANTS = (None, True, False, 0, -1, 1, 3, 7, 16, 10**6, 10**9, 2**63, 10**40, 0.5, -0.1, 1e308,
              1e-320, float("inf"), float("nan"), "", "x", "224", "\x1b[2J\n\u202e", "\ud800", [],
              {}, [0, 0], [224, 224], [1, 2, 3], ["a"], {"0": "a"}, [None])  # fmt: skip
_VALUES: tuple[Callable[[random.Random, Any], Any], ...] = (
    *(
        [lambda rng, value: copy.deepcopy(rng.choice(_CONSTANTS))] * 6
    ),  # a copy, because later changes may go into it
    _deep,
    lambda rng, value: "A" * rng.choice((300, 100_000)),
    lambda rng, value: (
        [None if isinstance(value, dict | list) else value] * rng.choice((2, 3, 999))
    ),
    lambda rng, value: value * 2 if isinstance(value, int | float | str | list) else value,
    lambda rng, value: str(value),
)


# -- Arrays by name


def odd_arrays(arrays: dict[str, np.ndarray], rng: random.Random) -> dict[str, np.ndarray]:
    """A good file whose arrays do not fit the model: other names or other shapes."""
    arrays = dict(arrays)
    for _ in range(rng.choice((1, 1, 2, 5))):
        name = rng.choice(list(arrays))
        array = arrays.pop(name)
        how = rng.randrange(8)
        if how == 0 and arrays:
            continue
        if how == 1:
            name = rng.choice(_NAMES)(name)
        elif how == 2:
            array = array.reshape(
                rng.choice(((-1,), (1, -1), (*array.shape, 1), array.shape[::-1]))
            )
        elif how == 3:
            array = (
                array[:1] if array.ndim and rng.random() < 0.7 else np.zeros((0, 3), array.dtype)
            )
        elif how == 4:
            array = np.concatenate([array, array], -1) if array.ndim else np.zeros((), np.int64)
        elif how == 5:
            array = array.astype(rng.choice(("i4", "u1", "?", "f2", "f8", "i8")))
        elif how == 6:
            array = np.full_like(array, rng.choice((0, 1, 99)))
        else:
            array = np.zeros(rng.choice(((), (1,), (7, 7), (3, 3, 3, 3, 3), (1, 10**6))), "f4")
        arrays[name] = array
    return arrays


_NAMES: tuple[Callable[[str], str], ...] = (
    lambda name: "",
    lambda name: "module." + name,
    lambda name: name + ".x",
    lambda name: name.replace("0", "1000000"),
    lambda name: name.replace("0", "-1"),
    lambda name: name.rpartition("/")[2] or name.rpartition(".")[2],
    lambda name: name.upper(),
    lambda name: "\x1b[31m" + name,
    lambda name: "opt/target/" + name,
)


# -- Zip archives, and what is in them


def rezipped(data: bytes, rng: random.Random, change: dict[str, Callable[..., bytes]]) -> bytes:
    """An archive with one damaged member and correct checksums, or with other members.

    `change` maps the end of a member's name to the function that damages the member.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(entry, archive.read(entry)) for entry in archive.infolist()]
    victim = rng.randrange(len(members))
    if change and rng.random() < 0.7:
        wanted = [i for i, (e, _) in enumerate(members) if e.filename.endswith(tuple(change))]
        victim = rng.choice(wanted or [victim])
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    odd = rng.random()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number, (entry, content) in enumerate(members):
            name = entry.filename
            if number == victim and odd < 0.85:
                how = next((f for end, f in change.items() if name.endswith(end)), damaged)
                content = how(content, rng)
            elif number == victim and odd < 0.9:
                name = rng.choice(("../../x.npy", "/x", ".", "a" * 300, "x\x1b[31m", name + ".npy"))
            elif number == victim and odd < 0.95:
                continue
            archive.writestr(name, content)
        if odd >= 0.95:
            archive.writestr(rng.choice(("README.txt", "y.npy", "data.pkl")), rng.randbytes(50))
    return out.getvalue()


def odd_npy(data: bytes, rng: random.Random) -> bytes:
    """An array file with a damaged header of the right length."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    size = struct.unpack("<H", data[8:10])[0]
    header = damaged(data[10 : 10 + size], rng)[:65535]
    body = data[10 + size :]
    return data[:8] + struct.pack("<H", len(header)) + header + body[: rng.choice((10**9, 8))]


def odd_pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle with opcodes left out, repeated, moved or added."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    starts = [place for _, _, place in pickletools.genops(data)]
    pieces = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 6))):
        at = rng.randrange(len(pieces))
        how = rng.randrange(5)
        if how == 0 and len(pieces) > 1:
            del pieces[at]
        elif how == 1:
            pieces[at:at] = [rng.choice(pieces)] * rng.choice((1, 1, 50))
        elif how == 2:
            pieces[at] = rng.choice(pieces)
        elif how == 3:
            pieces[at:at] = [rng.choice(_OPCODES)] * rng.choice((1, 1, 2000))
        else:
            pieces[at] = damaged(pieces[at], rng)
    return b"".join(pieces)


_OPCODES = (b"(", b"t", b"l", b"d", b"}", b"]", b")", b"N", b"K\xff", b"J\xff\xff\xff\x7f", b"R",
            b"b", b"0", b"2", b"1", b"Q", b"h\0", b"q\0", b"\x85", b"\x86", b"\x87", b"a", b"e",
            b"s", b"u", b"\x81", b"\x94", b"\x8f", b"\x90", b"\x91", b"cos\nsystem\n",
            b"cbuiltins\neval\n", b"X\2\0\0\0os", b"I99999\n", b"\x8a\x08\0\0\0\0\0\0\0\x7f",
            b"\x8b\xff\xff\xff\x7f", b"ccollections\nOrderedDict\n", b"\x82\1", b"Px\n",
            b"\x95\xff\xff\xff\xff\xff\xff\xff\xff", b".")  # fmt: skip


# -- Formats of other kinds


def odd_safetensors(data: bytes, rng: random.Random) -> bytes:
    """A file with a damaged JSON header of the right length."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    size = struct.unpack("<Q", data[:8])[0]
    header = odd_json(data[8 : 8 + size].decode(), rng)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def odd_png(data: bytes, rng: random.Random) -> bytes:
    """Chunks damaged, left out, repeated or swapped, with correct checksums."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    for _ in range(rng.choice((1, 1, 3))):
        one = rng.randrange(len(chunks))
        how = rng.random()
        if how < 0.6:
            chunks[one][1] = damaged(chunks[one][1], rng)
        elif how < 0.7 and len(chunks) > 1:
            del chunks[one]
        elif how < 0.8:
            chunks.insert(rng.randrange(len(chunks)), list(rng.choice(chunks)))
        elif how < 0.9:
            kind = rng.choice(
                (b"tRNS", b"PLTE", b"iCCP", b"gAMA", b"zTXt", b"acTL", b"fdAT", b"eXIf")
            )
            chunks.insert(rng.randrange(len(chunks)), [kind, rng.randbytes(rng.choice((1, 6, 40)))])
        else:  # the compressed rows themselves
            rows = b"".join(body for kind, body in chunks if kind == b"IDAT")
            rows = zlib.compress(damaged(rng.randbytes(20) + rows, rng))
            chunks = [c for c in chunks if c[0] != b"IDAT"]
            chunks.insert(max(len(chunks) - 1, 0), [b"IDAT", rows])
    out = data[:8]
    for kind, body in chunks:
        out += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return out


def odd_jpeg(data: bytes, rng: random.Random) -> bytes:
    """A segment damaged, left out or repeated, with correct lengths."""
    if rng.random() < 0.5:
        return damaged(data, rng)
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = struct.unpack(">H", data[at + 2 : at + 4])[0]
        segments.append((data[at : at + 2], data[at + 4 : at + 2 + size]))
        at += 2 + size
    one = rng.randrange(len(segments))
    how = rng.random()
    if how < 0.7:
        segments[one] = (segments[one][0], damaged(segments[one][1], rng)[:65_000])
    elif how < 0.85:
        segments.insert(rng.randrange(len(segments)), rng.choice(segments))
    else:
        del segments[one]
    head = b"".join(m + struct.pack(">H", len(body) + 2) + body for m, body in segments)
    return data[:2] + head + data[at:]


def odd_webp(data: bytes, rng: random.Random) -> bytes:
    """A damaged file whose outer length is corrected."""
    data = damaged(data, rng)
    if len(data) > 12 and rng.random() < 0.6:
        return b"RIFF" + struct.pack("<I", len(data) - 8) + b"WEBP" + data[12:]
    return data
