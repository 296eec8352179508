"""metrics.jsonl: one JSON object per line, read even if a kill or a power cut damaged it.

A file on a bucket cannot be appended to. There a run writes its lines to `metrics/000000.jsonl`
and further files; its end, or its next start, moves them to metrics.jsonl.
"""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from etils import epath

from vit_jax import plain_json
from vit_jax.workdir import place

NAME, SEGMENTS = "metrics.jsonl", "metrics"

Line = dict[str, Any]  # {"step": 1, name: value, ...}


@dataclasses.dataclass(frozen=True)
class Lines:
    """The intact lines of a file, and the number of damaged lines."""

    good: tuple[Line, ...]
    bad: int = 0


def read(workdir: str | os.PathLike[str]) -> Lines:
    """The lines of a run, in the order of writing; none if there is no file."""
    folder = place.folder(workdir)
    whole = parse(_content(folder / NAME))
    seen = {to_bytes([line]) for line in whole.good}
    good, bad = list(whole.good), whole.bad
    for path in segments(folder):
        part = parse(_content(path))
        # A kill between writing metrics.jsonl and removing the segments leaves lines in both.
        good += [line for line in part.good if to_bytes([line]) not in seen]
        bad += part.bad
    return Lines(tuple(good), bad)


def segments(folder: epath.Path) -> list[epath.Path]:
    """The files of `metrics/` on a bucket, in the order of writing."""
    parts = folder / SEGMENTS
    if not place.is_bucket(folder) or not parts.exists():
        return []
    return sorted(path for path in parts.iterdir() if path.name.endswith(".jsonl"))


def parse(content: bytes) -> Lines:
    """The lines that are JSON objects with a whole number `step`; other lines are counted."""
    good, bad = [], 0
    for raw in content.split(b"\n"):
        # A power cut leaves blocks of zeros; a whole line may follow a cut one without a line end.
        text = raw.strip(b"\0\r\t ")
        bad += b"\0" in raw and not text
        if not text:
            continue
        line, begin = _line(text), text.rfind(b'{"step":')
        if line is None:
            bad += 1
            line = _line(text[begin:]) if begin > 0 else None
        if line is not None:
            good.append(line)
    return Lines(tuple(good), bad)


def to_bytes(lines: Sequence[Line]) -> bytes:
    """The content of a file; NaN and infinities are written as null, for JSON lacks them."""
    return b"".join(json.dumps(_finite(line), allow_nan=False).encode() + b"\n" for line in lines)


def numbers(line: Line) -> dict[str, float]:
    """The numbers of a line by name, without its step."""
    return {
        name: float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _content(path: epath.Path) -> bytes:
    if not path.exists():
        return b""
    try:
        if not place.is_file(path):
            raise OSError("it is not a file")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _line(text: bytes) -> Line | None:
    try:
        line = json.loads(
            text,
            parse_constant=lambda _: None,
            parse_int=plain_json.short_integer,
            parse_float=_fraction,
        )
        if not isinstance(line, dict):
            return None
        "".join(line).encode()  # half of a pair of surrogates in a name cannot be written again
        if any(isinstance(value, list | dict) for value in line.values()):
            json.dumps(line)  # drop a line that is nested too deep to be written again
    except (ValueError, RecursionError):
        return None
    step = line.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        return None
    return line


def _fraction(text: str) -> float | None:
    value = float(text)  # 1e999 is infinite
    return value if math.isfinite(value) else None


def _finite(line: Line) -> Line:
    infinite = {k for k, v in line.items() if isinstance(v, float) and not math.isfinite(v)}
    return line | dict.fromkeys(infinite)
