"""Builds dataclasses from JSON types. Their annotations are the schema."""

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from vit_jax.schema.forms import (
    UNSET,
    Choice,
    Field,
    FrozenMapping,
    Listed,
    Named,
    Open,
    fields,
    group_of,
    is_group,
    is_one_unit,
    keys,
)


def build(kind: Any, value: Any, path: str) -> Any:
    """`value`, made of JSON types, as an instance of `kind`, such as a dataclass.

    Raises ValueError that names the field by its `path` if the value does not fit.
    """
    if is_group(kind):
        return _group(kind, value, path)
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
        if isinstance(value, Mapping):  # its keys are no items
            raise ValueError(f"{path} must be a list, got {value!r}")
        if isinstance(value, str) or not isinstance(value, typing.Iterable):
            value = (value,)
        value = tuple(value)
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise ValueError(f"{path} needs {len(args)} values, got {value!r}")
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        return tuple(
            build(kind, item, f"{path}[{i}]")
            for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < sys.float_info.max else math.inf
    if type(value) is not kind:
        raise ValueError(f"{path} must be {kind.__name__}, got {value!r}")
    return value


class Missing(ValueError):
    """A field without a default is missing."""


def one_unit(
    kind: Any, lower: Mapping[str, Any], given: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """The units of a quantity after `given` is set over `lower`: one unit replaces all others.

    So does a 0, of whatever unit: the quantity is 0 then. Raises ValueError for two units.
    """
    units = [name for name in fields(kind) if given.get(name)]
    if len(units) > 1:
        raise ValueError(f"{path} is given in {' and '.join(units)}: keep one, set the others to 0")
    return dict(given or lower)


def entry(choice: Choice, value: Mapping[str, Any], path: str) -> Any:
    """The dataclass of the entry that `value` names."""
    name = value.get(choice.key, choice.default)
    if name in choice.table if isinstance(name, str) else False:
        return choice.table[name]
    known = ", ".join(map(repr, choice.table))
    if not name:
        raise Missing(f"{path} lacks {choice.key}: choose one of {known}")
    raise ValueError(f"{path}.{choice.key} is {name!r}: choose one of {known}")


def unknown(kind: Any, key: str, value: Mapping[str, Any], path: str) -> ValueError:
    """The error for an unknown field, or for a field of an entry that is not selected."""
    for field in fields(kind).values():
        if (choice := field.beside) and (owners := choice.owners(key)):
            return _belongs(choice, owners, key, value, path)
    return ValueError(f"unknown config field {path}.{key}: {nearest(key, keys(kind))}")


def _belongs(
    choice: Choice, owners: list[str], key: str, value: Mapping[str, Any], path: str
) -> ValueError:
    chosen = value.get(choice.key, choice.default)
    whose = " and ".join(part for part in (", ".join(owners[:-1]), owners[-1]) if part)
    return ValueError(
        f"{path}.{key} belongs to {whose}; {path}.{choice.key} is {chosen!r}: leave it out, or"
        f" choose {'it' if len(owners) == 1 else 'one of them'}"
    )


def _group(kind: Any, value: Any, path: str) -> Any:
    """A dataclass, made of a mapping with its fields and those of its choices."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} must hold the fields of {kind.__name__}, got {value!r}")
    rest, made = dict(value), {}
    for name, field in fields(kind).items():
        if field.beside:
            made[name] = _beside(field.beside, rest, path)
        elif isinstance(field.form, Open):
            own = {key: rest.pop(key) for key in value if key not in fields(kind)}
            made[name] = _any(field.form, own, value, path)
    for key, given in rest.items():
        known = fields(kind).get(key)
        if known is None or known.flat:
            raise unknown(kind, key, value, path)
        made[key] = _field(known, given, f"{path}.{key}")
    if missing := [n for n, f in fields(kind).items() if n not in made and _required(f)]:
        raise Missing(f"{path} lacks {', '.join(missing)}")
    try:
        return kind(**made)
    except ValueError as error:
        add_path(error, path, kind)
        raise


def add_path(error: ValueError, path: str, kind: Any) -> None:
    """Adds to the error of a dataclass's own check the path of its group, or of the field it names.

    The error stays the same object: its traceback says whether this package or a library raised it.
    """
    text = str(error)
    if not text.startswith("config."):  # else the check knows its path
        named = text.partition(" ")[0] in fields(kind)
        error.args = (f"{path}.{text}" if named else f"{path}: {text}",)


def _field(field: Field, value: Any, path: str) -> Any:
    match field.form:
        case Choice() as form:
            return _own(form, value, path)
        case Named(form):
            if not isinstance(value, Mapping):
                raise ValueError(f"{path} must map names to groups of fields, got {value!r}")
            made = {name: _own(form, item, f"{path}.{name}") for name, item in value.items()}
            return FrozenMapping(made)
        case Listed(form):
            entries = by_name(form, value, path).items()
            return tuple(_own(form, item, f"{path}.{name}") for name, item in entries)
    if is_one_unit(field.kind) and isinstance(value, Mapping):
        lower = {} if _required(field) else vars(field.default)
        value = one_unit(field.kind, lower, value, path)
    return build(field.kind, value, path)


def by_name(choice: Choice, value: Any, path: str) -> dict[str, dict[str, Any]]:
    """The entries of a list by their names; each holds its name and fields."""
    if isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values()):
        value = [{choice.key: name, **item} for name, item in value.items()]
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"{path} must be a list of names, or of groups of fields, got {value!r}")
    found: dict[str, dict[str, Any]] = {}
    for item in (value,) if isinstance(value, str) else value:
        own = dict(item) if isinstance(item, Mapping) else {choice.key: item}
        entry(choice, own, path)
        if (name := own[choice.key]) in found:
            raise ValueError(f"{path} names {name!r} twice: name it once")
        found[name] = own
    return found


def _own(choice: Choice, value: Any, path: str) -> Any:
    """An entry whose group holds only its name and its fields."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} must hold {choice.key} and the fields of a choice, got {value!r}")
    for key in value.keys() - {choice.key, *choice.fields()}:
        known = {choice.key, *keys(entry(choice, value, path))}
        raise ValueError(f"unknown config field {path}.{key}: {nearest(key, known)}")
    return _beside(choice, dict(value), path)


def _beside(choice: Choice, rest: dict[str, Any], path: str) -> Any:
    """The entry that a group names. Its name and fields are removed from `rest`."""
    kind, given = entry(choice, rest, path), dict(rest)
    rest.pop(choice.key, None)
    own = {key: rest.pop(key) for key in keys(kind) & rest.keys()}
    for key in choice.fields() & rest.keys():
        if rest.pop(key) != {}:  # an empty group sets nothing
            raise _belongs(choice, choice.owners(key), key, given, path)
    return build(kind, own, path)


def _any(
    form: Open, given: Mapping[str, Any], group: Mapping[str, Any], path: str
) -> FrozenMapping:
    """The fields of other dataclasses that are set."""
    read = {key: form.read(key, value) for key, value in given.items()}
    some = {key: value for key, value in read.items() if value is not UNSET and value != {}}
    found = {}
    for key, value in some.items():
        kinds = candidates(form, key, group, path)
        found[key] = _first(kinds, value, f"{path}.{key}")
    return FrozenMapping(found)


def candidates(form: Open, key: str, group: Mapping[str, Any], path: str) -> list[Any]:
    """The types that a field may have. Raises ValueError for an unknown or refused field."""
    if key in form.refused:
        raise ValueError(f"{path}.{key} cannot be set here: {form.refused[key]}")
    known = [fields(kind) for kind in form.kinds(group)]
    if found := [own[key].kind for own in known if key in own]:
        return list(dict.fromkeys(found))
    names = {name for own in known for name in own} - form.refused.keys()
    whose = f" of {group['name']}" if group.get("name") else ""
    raise ValueError(f"unknown config field {path}.{key}{whose}: {nearest(key, names)}")


def _first(kinds: list[Any], value: Any, path: str) -> Any:
    """`value` as the first of the types that fits."""
    errors = []
    for kind in kinds:
        try:
            return _some(kind, value, path)
        except ValueError as error:
            errors.append(error)
    raise errors[0]


def _some(kind: Any, value: Any, path: str) -> Any:
    """As `build`, but a dataclass becomes a mapping of the fields that are set."""
    own = group_of(kind)
    if own is None or not isinstance(value, Mapping):
        return build(kind, value, path)
    known = fields(own)
    for key in value:
        if key not in known:
            raise ValueError(f"unknown config field {path}.{key}: {nearest(key, known)}")
    return FrozenMapping({k: _some(known[k].kind, v, f"{path}.{k}") for k, v in value.items()})


def _required(field: Field) -> bool:
    return field.default is dataclasses.MISSING


def _member(union: Any, value: Any) -> Any:
    """The member of a union besides None; of several, the one whose `family` is the value's."""
    members = [kind for kind in typing.get_args(union) if kind is not types.NoneType]
    family = value.get("family") if isinstance(value, Mapping) else None
    return next((m for m in members if getattr(m, "family", None) == family), members[0])


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """`did you mean 'x'?`, or the list of all known names if no name is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
