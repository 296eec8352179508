"""Overrides: single fields of a config that replace those of a recipe, such as `total.steps`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.schema.build import by_name, candidates, entry, one_unit, unknown
from vit_jax.schema.forms import (
    Choice,
    Field,
    Listed,
    Named,
    Open,
    fields,
    group_of,
    is_group,
    is_one_unit,
    keys,
)

Values = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """The field that a path leads to."""

    kind: Any  # the type of its value
    default: Any = None
    choice: Choice | None = None  # the choice whose entry it names
    below: tuple[str, ...] = ()  # the fields of a group, which has no value
    late: bool = False  # whether its type depends on other fields of its group


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """A field that the user sets: `text` is as typed, `parse` reads the value."""

    path: tuple[str, ...]
    text: str
    parse: Callable[[Target], Any]


def locate(kind: Any, path: Sequence[str], values: Mapping[str, Any], at: str) -> Target:
    """The field that a path leads to; `values` say which entries are selected.

    Raises ValueError for an unknown field, and for a field of an entry that is not selected.
    """
    key, *rest = path
    field = fields(kind).get(key)
    if field is None or field.flat:
        return _locate_beside(kind, path, values, at)
    at, inner = f"{at}.{key}", values.get(key, {})
    match field.form:
        case Choice() as form:
            return _locate_entry(form, rest, inner, at)
        case Named(form):
            if not rest:
                return Target(kind=dict, below=(f"NAME.{form.key}",))
            own = inner.get(rest[0], {})
            return _locate_entry(form, rest[1:], own, f"{at}.{rest[0]}")
        case Listed(form):
            return _locate_item(field, form, rest, inner, at)
    if is_group(field.kind):
        if not rest:
            return Target(kind=field.kind, below=tuple(sorted(keys(field.kind))))
        return locate(field.kind, rest, inner, at)
    return _last(Target(kind=field.kind, default=field.default), rest, at)


def _last(target: Target, rest: Sequence[str], at: str) -> Target:
    """The field `at`, which has no fields. Raises ValueError if the path goes on."""
    if rest:
        raise ValueError(f"unknown config field {at}.{'.'.join(rest)}: {at} has no fields")
    return target


def _locate_beside(kind: Any, path: Sequence[str], values: Mapping[str, Any], at: str) -> Target:
    for field in fields(kind).values():
        if isinstance(field.form, Open):
            return _locate_any(candidates(field.form, path[0], values, at), path, at)
        if not (choice := field.beside):
            continue
        if path[0] == choice.key:
            return _name(choice, path[1:], at)
        if path[0] in choice.fields():
            chosen = entry(choice, values, at)
            if path[0] in keys(chosen):
                return locate(chosen, path, values, at)
    raise unknown(kind, path[0], values, at)


def _locate_any(kinds: list[Any], path: Sequence[str], at: str) -> Target:
    """A field of one of several types; then its value is read as a Python literal."""
    inner = next((own for own in map(group_of, kinds) if own), None)
    if inner and path[1:]:
        target = locate(inner, path[1:], {}, f"{at}.{path[0]}")
        return dataclasses.replace(target, late=True)
    if inner:
        return Target(kind=inner, below=tuple(sorted(keys(inner))))
    target = Target(kind=kinds[0] if len(kinds) == 1 else object, late=True)
    return _last(target, path[1:], f"{at}.{path[0]}")


def _name(choice: Choice, rest: Sequence[str], at: str) -> Target:
    """The field that names the entry of a choice."""
    target = Target(kind=str, default=choice.default, choice=choice)
    return _last(target, rest, f"{at}.{choice.key}")


def _locate_entry(
    choice: Choice, path: Sequence[str], values: Mapping[str, Any], at: str
) -> Target:
    if not path:
        return Target(kind=dict, below=(choice.key, *sorted(choice.fields())))
    if path[0] == choice.key:
        return _name(choice, path[1:], at)
    return locate(entry(choice, values, at), path, values, at)


def _locate_item(field: Field, choice: Choice, path: Sequence[str], values: Any, at: str) -> Target:
    if not path:
        return Target(kind=tuple, default=field.default, choice=choice)
    items = by_name(choice, values or (), at)
    if path[0] not in items:
        raise ValueError(
            f"{at}.{path[0]}: {at} is {', '.join(items) or 'empty'}: add it to that list at the"
            f" right position ({at} can have {', '.join(choice.table)})"
        )
    return _locate_entry(choice, path[1:], items[path[0]], f"{at}.{path[0]}")


def apply(kind: Any, values: Values, overrides: Sequence[Override]) -> tuple[Values, list[str]]:
    """The values with overrides, and notes of what a new choice removed.

    Choices are applied before their fields, whatever the order of the overrides. Raises ValueError
    if a field or its value is wrong.
    """
    notes: list[str] = []
    values, rest = _opened(kind, values), list(overrides)
    while chosen := next((o for o in rest if _is(kind, o, values, "choice")), None):
        rest.remove(chosen)
        target = locate(kind, chosen.path, values, "config")
        notes += _choose(values, chosen, target)
    units: dict[tuple[str, ...], Values] = {}
    for override in sorted(rest, key=lambda o: _is(kind, o, values, "late")):
        target = locate(kind, override.path, values, "config")
        value, parent = override.parse(target), override.path[:-1]
        if parent and is_one_unit(locate(kind, parent, values, "config").kind):
            units.setdefault(parent, {})[override.path[-1]] = value
        else:
            _parent(values, override.path)[override.path[-1]] = value
    for path, given in units.items():
        group = _parent(values, path)
        unit = locate(kind, path, values, "config").kind
        lower = group.get(path[-1], {})
        group[path[-1]] = one_unit(unit, lower, given, f"config.{'.'.join(path)}")
    return values, notes


def _is(kind: Any, override: Override, values: Values, what: str) -> bool:
    """The attribute `what` of the target: whether it is a choice, or is `late`."""
    try:
        return bool(getattr(locate(kind, override.path, values, "config"), what))
    except ValueError:
        return what == "late"  # it needs a later choice, or is wrong and reported later


def _choose(values: Values, override: Override, target: Target) -> list[str]:
    """Selects another entry, which starts from its defaults; returns notes."""
    *where, key = override.path
    value, choice, group = override.parse(target), target.choice, _parent(values, override.path)
    assert choice is not None
    if target.kind is tuple:
        group[key] = by_name(choice, value, ".".join(("config", *override.path)))
        return []
    before, group[key] = group.get(key, choice.default), value
    entry(choice, group, ".".join(("config", *where)))
    if value == before:
        return []
    dropped = {k: group.pop(k) for k in choice.fields() & group.keys() if k != key}
    lost = [f"{'.'.join((*where, k))}={v!r}" for k, v in sorted(dropped.items()) if v != {}]
    return [f"{override.text} starts from its defaults, without {', '.join(lost)}"] if lost else []


def _parent(values: Values, path: Sequence[str]) -> Values:
    """The group of `values` that holds a field; it is created if missing."""
    for key in path[:-1]:
        values = values.setdefault(key, {})
    return values


def _opened(kind: Any, values: Mapping[str, Any]) -> Values:
    """A copy in which lists of entries are mappings by name."""
    known, copy = fields(kind), {}
    for key, value in values.items():
        field = known.get(key)
        if field and isinstance(field.form, Listed):
            copy[key] = by_name(field.form.choice, value, f"config.{key}")
        elif field and not field.form and is_group(field.kind):
            copy[key] = _opened(field.kind, value)
        else:
            copy[key] = _copied(value)
    return copy


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value
