"""Describes the fields of a config: their types and defaults, and their meanings.

The meaning of a field is the comment at the end of its line or on the lines above it.
"""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from vit_jax.schema.forms import (
    UNSET,
    Choice,
    Field,
    Listed,
    Named,
    Open,
    fields,
    group_of,
    is_group,
    is_one_unit,
    plain,
)

_COMMA = re.compile(r",(?![^(\[{]*[)\]}])")  # outside the brackets of a regular expression


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One field that a config may set."""

    path: str
    kind: str
    default: str
    meaning: str
    group: str  # a title for its group
    needs: tuple[str, str] | None = None  # the field and the value of the choice it belongs to


def entries(
    kind: Any, values: Mapping[str, Any], prefix: str = "", group: str = ""
) -> Iterator[Entry]:
    """Every field of a dataclass and of all its choices, in the order of the source.

    `values` are those of a config, as far as they are known. If they name a model, only the fields
    of its family are listed. If they name entries, such as evaluators, their names replace NAME.
    """
    known, below = meanings(kind), list[Iterator[Entry]]()
    for name, field in fields(kind).items():
        path, meaning = f"{prefix}{name}", known.get(name, "")
        match field.form:
            case Choice(beside=True) as form:
                yield _name(form, prefix, form.default, meaning, group)
                below.append(_choices(form, prefix))
            case Choice() as form:
                yield _name(form, f"{path}.", form.default, meaning, group)
                below.append(_choices(form, f"{path}."))
            case Named(form):
                for own, more in _labels(values.get(name)).items():
                    yield _name(form, f"{path}.{own}.", "", meaning + more, group)
                    below.append(_choices(form, f"{path}.{own}."))
            case Listed(form):
                order = shown(tuple(form.name(item) for item in field.default))
                names = f"a list of {', '.join(form.table)}"
                yield Entry(path=path, kind=names, default=order, meaning=meaning, group=group)
                below.append(_items(form, path))
            case Open() as form:
                below.append(_any(form, prefix, values))
            case None if not is_one_unit(field.kind) and (own := group_of(field.kind)):
                title = _title(path, meaning or doc(own))
                below.append(entries(own, values.get(name, {}), f"{path}.", title))
            case None:
                yield _plain(field, path, meaning, group)
    for found in below:
        yield from found


def _name(form: Choice, prefix: str, default: str, meaning: str, group: str) -> Entry:
    """The field that names the entry of a table."""
    names, path = f"one of {', '.join(form.table)}", f"{prefix}{form.key}"
    return Entry(path=path, kind=names, default=default, meaning=meaning, group=group)


def _labels(values: Mapping[str, Any] | None) -> dict[str, str]:
    """The names that a config gives to entries, or NAME, and what to say of each."""
    return dict.fromkeys(values, "") if values else {"NAME": " Choose any NAME."}


def _choices(form: Choice, prefix: str) -> Iterator[Entry]:
    """The fields of each entry of a table."""
    key = f"{prefix}{form.key}"
    for name, own in form.table.items():
        for entry in entries(own, {}, prefix, f"{key}={name}: {doc(own)}"):
            yield dataclasses.replace(entry, needs=entry.needs or (key, name))


def _items(form: Choice, path: str) -> Iterator[Entry]:
    """The fields of each entry of a list."""
    for name, own in form.table.items():
        yield from entries(own, {}, f"{path}.{name}.", f"{path} with {name}: {doc(own)}")


def _any(form: Open, prefix: str, values: Mapping[str, Any]) -> Iterator[Entry]:
    """The fields of other dataclasses. A default is shown only if it applies when unset."""
    for own in form.kinds(values):
        title = f"{prefix}* of {own.__name__}: {doc(own)}"
        for entry in entries(own, {}, prefix, title):
            name = entry.path.removeprefix(prefix)
            if name in form.refused:
                continue
            known = fields(own).get(name)
            meant = known and form.read(name, known.default) is UNSET
            yield entry if meant else dataclasses.replace(entry, default="")


def _title(path: str, meaning: str) -> str:
    return f"{path}: {meaning}" if meaning else path


def _plain(field: Field, path: str, meaning: str, group: str) -> Entry:
    return Entry(
        path=path,
        kind=type_in_words(field.kind),
        default=shown(field.default),
        meaning=meaning,
        group=group,
    )


def shown(value: Any) -> str:
    """A value as it is typed on the command line; "" if there is none or it is unset."""
    if value is dataclasses.MISSING:
        return ""
    if is_one_unit(type(value)):
        units = {unit: number for unit, number in vars(value).items() if number}
        return " ".join(f"{unit}={number}" for unit, number in units.items()) or "never"
    value = plain(value)
    if isinstance(value, tuple):
        return _list(value)
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _list(values: tuple[Any, ...]) -> str:
    """A list with commas between its items, and with quotes if its texts need them."""
    text = ",".join(map(str, values))
    if all(isinstance(value, str) for value in values) and texts(text) != values:
        return ",".join(map(repr, values))
    one_pair = len(values) == 1 and isinstance(values[0], tuple)
    return f"{text}," if one_pair else text  # without a comma it would be a list of two numbers


def texts(text: str) -> tuple[str, ...] | None:
    """The texts of a list that is typed without quotes; None if it is a Python literal."""
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return tuple(part.strip() for part in _COMMA.split(text) if part.strip())
    return None


def type_in_words(kind: Any) -> str:
    """The type of a field in words."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if is_one_unit(kind):
        return "one of ." + ", .".join(fields(kind))
    if origin is Literal:
        return f"one of {', '.join(str(member) or 'nothing' for member in members)}"
    if origin is types.UnionType:
        return " or ".join(
            "none" if member is types.NoneType else type_in_words(member) for member in members
        )
    if origin is tuple:
        several = members[-1] is Ellipsis
        each = type_in_words(members[0])
        each += "s" if each.endswith(("number", "text")) else ""
        return f"list of {each}" if several else f"{len(members)} {each}"
    words = {bool: "true or false", str: "text", int: "whole number", float: "number"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def doc(kind: Any) -> str:
    """The first paragraph of a dataclass's docstring, without what it raises."""
    text = inspect.cleandoc(kind.__dict__.get("__doc__") or "")
    if text.startswith(f"{kind.__name__}("):  # made by dataclasses
        return ""
    return " ".join(text.partition("\n\n")[0].split()).partition(" Raises ")[0]


def meanings(kind: Any) -> dict[str, str]:
    """The comment of every field of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        if is_group(part):
            found |= _comments(part)
    return found


def _comments(kind: type) -> dict[str, str]:
    """The comments of the fields that the class itself defines; {} if there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip():
            above.append(text)
        elif token.type == tokenize.COMMENT and name:
            found[name] = " ".join((found.get(name, ""), text)).strip()
        elif token.type == tokenize.NAME and re.match(rf"    {token.string}\s*:", token.line):
            if token.start[1] == 4:
                name, above_text = token.string, " ".join(above)
                found[name] = above_text
                above = []
        elif token.type == tokenize.NEWLINE:
            name, above = "", []
    return {name: meaning for name, meaning in found.items() if meaning}
