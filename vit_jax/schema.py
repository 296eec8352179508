"""From JSON types to dataclasses, whose annotations are the schema."""

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal


def build(kind: Any, value: Any, path: str) -> Any:
    """`value`, made of JSON types, as an instance of `kind`, such as a dataclass.

    Every misfit is a ValueError that names the field by its `path`.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} must hold the fields of {kind.__name__}, got {value!r}")
        hints = typing.get_type_hints(kind)
        for key in value:
            if key not in hints:
                raise ValueError(f"unknown config field {path}.{key}: {nearest(key, hints)}")
        if missing := [name for name in _required(kind) if name not in value]:
            raise ValueError(f"{path} lacks {', '.join(missing)}")
        return kind(**{key: build(hints[key], v, f"{path}.{key}") for key, v in value.items()})
    origin = typing.get_origin(kind)
    if origin is types.UnionType:  # with None, or of dataclasses
        if value is None and types.NoneType in typing.get_args(kind):
            return None
        return build(_member(kind, value), value, path)
    if origin is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ValueError(f"{path} is {value!r}: choose one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        args = typing.get_args(kind)
        if isinstance(value, str) or not isinstance(value, typing.Iterable):
            value = (value,)
        value = tuple(value)
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ValueError(f"{path} needs {len(args)} values, got {value!r}")
        return tuple(build(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if type(value) is not kind:
        raise ValueError(f"{path} must be {kind.__name__}, got {value!r}")
    return value


def _required(kind: Any) -> list[str]:
    """Names of the fields of a dataclass that have no default."""
    none = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return [f.name for f in fields if f.default is none and f.default_factory is none]


def _member(union: Any, value: Any) -> Any:
    """The type of a union with None; of dataclasses the one of the value's `family`."""
    members = [kind for kind in typing.get_args(union) if kind is not types.NoneType]
    family = value.get("family") if isinstance(value, Mapping) else None
    return next((m for m in members if getattr(m, "family", None) == family), members[0])


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """` Did you mean 'x'?`, or the list of all known names where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
