"""How a dataclass declares its fields: plain fields, durations, and choices that have fields.

A choice names one entry of a table, which maps names to dataclasses. In a config the fields of the
entry stand beside its name:

    optimizer: {name: adamw, b1: 0.9, learning_rate: 1e-3}     in the group of the choice (`choice`)
    objective: {name: classification, label_smoothing: 0.1}    in a separate group (`group`)
    evaluators: {nearest: {kind: knn, k: 20}, ...}             under names of the user (`named`)
    augment: ["flip", {name: mixup, alpha: 0.2}]               in a list (`listed`)

A group may also hold any fields of other dataclasses (`any_of`).

The typed value always holds an instance of the entry's dataclass. Tables are read when they are
used, so that entries can be added at any time.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_FORM = "schema form"


class OneUnit:
    """Base of a dataclass for a quantity in one of several units; the other units are 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One entry of a table, named by the config field `key`."""

    table: Mapping[str, Any]  # name -> dataclass
    default: str = ""  # "": there is none, so a config must name an entry
    key: str = "name"
    beside: bool = False  # whether the entry's fields stand in the group that holds the choice

    def name(self, value: Any) -> str:
        """The name of the entry that `value` is an instance of."""
        return next(name for name, kind in self.table.items() if type(value) is kind)

    def fields(self) -> set[str]:
        """The fields of all entries."""
        return {key for kind in self.table.values() for key in keys(kind)}

    def owners(self, key: str) -> list[str]:
        """The entries that have a field."""
        return [name for name, kind in self.table.items() if key in keys(kind)]


@dataclasses.dataclass(frozen=True)
class Named:
    """Any number of entries, each under a name that the user chooses."""

    choice: Choice


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list of entries, each at most once."""

    choice: Choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Open:
    """Any fields of other dataclasses, in the same group as the field with this form.

    The value is a `FrozenMapping` of the fields that are set.
    """

    kinds: Callable[[Mapping[str, Any]], tuple[Any, ...]]  # the group's values -> the dataclasses
    refused: Mapping[str, str]  # fields that are set elsewhere, and where
    read: Callable[[str, Any], Any]  # (field, value) -> value, or `UNSET` if that means unset


UNSET = object()
Form = Choice | Named | Listed | Open | None


def choice(table: Mapping[str, Any], default: str, *, key: str) -> Any:
    """A field that holds one entry of `table`, whose fields stand beside it in the config."""
    form = Choice(table=table, default=default, key=key, beside=True)
    return dataclasses.field(default_factory=lambda: table[default](), metadata={_FORM: form})


def group(table: Mapping[str, Any], default: str, *, key: str = "name") -> Any:
    """A field that holds one entry of `table`, whose fields are a group of the config."""
    form = Choice(table=table, default=default, key=key)
    return dataclasses.field(default_factory=lambda: table[default](), metadata={_FORM: form})


def named(
    table: Mapping[str, Any], default: Mapping[str, Any] | None = None, *, key: str = "kind"
) -> Any:
    """A field that maps names, which the user chooses, to entries of `table`."""
    form = Named(Choice(table=table, key=key))
    given = FrozenMapping(default or {})
    return dataclasses.field(default=given, metadata={_FORM: form})


def listed(table: Mapping[str, Any], default: Sequence[Any] = (), *, key: str = "name") -> Any:
    """A field that holds a list of entries of `table`."""
    form = Listed(Choice(table=table, key=key))
    return dataclasses.field(default=tuple(default), metadata={_FORM: form})


def any_of(
    kinds: Callable[[Mapping[str, Any]], tuple[Any, ...]],
    *,
    refused: Mapping[str, str],
    read: Callable[[str, Any], Any],
) -> Any:
    """A field that holds the fields of other dataclasses that a config sets."""
    form = Open(kinds=kinds, refused=refused, read=read)
    return dataclasses.field(default=FrozenMapping(), metadata={_FORM: form})


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a dataclass, with its form in a config."""

    name: str
    kind: Any  # its type
    form: Form
    source: "dataclasses.Field[Any]"

    @property
    def default(self) -> Any:
        """Its default, or `dataclasses.MISSING`."""
        factory = self.source.default_factory
        return self.source.default if factory is dataclasses.MISSING else factory()

    @property
    def beside(self) -> Choice | None:
        """The choice, if its fields stand in the same group."""
        return self.form if isinstance(self.form, Choice) and self.form.beside else None

    @property
    def flat(self) -> bool:
        """Whether its fields stand in its group, so that its name is not a key of the config."""
        return self.beside is not None or isinstance(self.form, Open)


def fields(kind: Any) -> dict[str, Field]:
    """The fields of a dataclass, by name."""
    return _fields(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, Field]:
    hints = typing.get_type_hints(kind)
    return {
        f.name: Field(f.name, hints[f.name], f.metadata.get(_FORM), f)
        for f in dataclasses.fields(kind)
        if f.init
    }


def tables(kind: Any) -> Iterator[Mapping[str, Any]]:
    """The tables of all choices of a dataclass, of its groups, and of the entries of tables."""
    for field in fields(kind).values():
        match field.form:
            case Choice() as form:
                below = form.table
            case Named(form) | Listed(form):
                below = form.table
            case _:
                own = group_of(field.kind)
                yield from tables(own) if own else ()
                continue
        yield below
        for entry in below.values():
            yield from tables(entry)


def keys(kind: Any) -> set[str]:
    """The keys that a config may set in the group of a dataclass, for all its choices."""
    found: set[str] = set()
    for name, field in fields(kind).items():
        if isinstance(field.form, Open):
            found |= {key for own in field.form.kinds({}) for key in fields(own)}
        else:
            found |= {field.beside.key, *field.beside.fields()} if field.beside else {name}
    return found


def is_group(kind: Any) -> bool:
    """Whether a type is a dataclass."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def group_of(kind: Any) -> Any:
    """The dataclass in a type such as `X` or `X | None`; None if there is none."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((member for member in members if is_group(member)), None)


def is_one_unit(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, OneUnit)


class FrozenMapping(Mapping[str, Any]):
    """A mapping that cannot change; it is hashable if its values are."""

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items = dict(items or {})

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def plain(value: Any) -> Any:
    """A typed value as mappings, tuples, numbers and texts, as a config holds it."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    if not dataclasses.is_dataclass(value):
        return value
    found: dict[str, Any] = {}
    for name, field in fields(type(value)).items():
        item = getattr(value, name)
        match field.form:
            case Choice(beside=True) as form:
                found |= _entry(form, item)
            case Open():
                found |= plain(item)
            case Choice() as form:
                found[name] = _entry(form, item)
            case Named(form):
                found[name] = {label: _entry(form, entry) for label, entry in item.items()}
            case Listed(form):
                found[name] = tuple(_item(form, entry) for entry in item)
            case None:
                found[name] = plain(item)
    return found


def _entry(form: Choice, value: Any) -> dict[str, Any]:
    return {form.key: form.name(value), **plain(value)}


def _item(form: Choice, value: Any) -> Any:
    entry = _entry(form, value)
    return entry if len(entry) > 1 else entry[form.key]


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value in a typed value, with its path in the config; a quantity is one value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, OneUnit):
        for name, field in fields(type(value)).items():
            item = getattr(value, name)
            if isinstance(field.form, Listed):
                item = {field.form.choice.name(entry): entry for entry in item}
            yield from leaves(item, path if field.flat else f"{path}.{name}")
    else:
        yield path, value


def unset(kind: Any) -> dict[str, Any]:
    """The values that a recipe starts from: shared fields and the names of choices.

    The fields of choices and the units of durations are absent, so that the ones that a recipe sets
    differ from defaults. Groups are empty mappings.
    """
    found: dict[str, Any] = {}
    for name, field in fields(kind).items():
        match field.form:
            case Choice(beside=True) as form:
                inner = (unset(entry) for entry in form.table.values())
                found |= {k: v for own in inner for k, v in own.items() if v == {}}
                found[form.key] = form.default
            case Choice() as form:
                own = unset(form.table[form.default])
                found[name] = {form.key: form.default} | {k: v for k, v in own.items() if v == {}}
            case Named(form):
                found[name] = {label: _chosen(form, item) for label, item in field.default.items()}
            case Listed(form):
                found[name] = tuple(_item(form, item) for item in field.default)
            case Open() as form:
                known = [item for own in form.kinds({}) for item in fields(own).values()]
                found |= {item.name: {} for item in known if group_of(item.kind)}
            case None if is_one_unit(field.kind):
                found[name] = {}
            case None if is_group(field.kind):
                found[name] = unset(field.kind)
            case None if field.default is not dataclasses.MISSING:
                found[name] = plain(field.default)
    return found


def _chosen(form: Choice, value: Any) -> dict[str, Any]:
    """The name of an entry, and the fields whose values are not the defaults."""
    known, own = fields(type(value)), plain(value)
    empty: dict[str, Any] = {name: {} for name, field in known.items() if is_one_unit(field.kind)}
    changed = {n: own[n] for n, f in known.items() if getattr(value, n) != f.default and n in own}
    return {form.key: form.name(value), **empty, **changed}
