"""`config`: shows the fields of a config, their types, defaults and meanings."""

import argparse
import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax import schema
from vit_jax.schema.describe import Entry, entries, shown
from vit_jax.text import printable

WIDTH, INDENT = 100, " " * 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "field",
        nargs="?",
        default="",
        help="show only this field or group, or those with this word",
    )
    parser.add_argument(
        "--config", metavar="FILE[:ARGUMENT]", help="show the values of a recipe too"
    )
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Show or search the fields of a config: type, default and meaning.

    The fields of a choice exist only if it is selected: --config.optimizer.momentum=0.9 needs
    --config.optimizer.name=sgd. With --config, and --config.FIELD=VALUE, the values of a recipe are
    shown too. A word that is no field shows the fields that have it in their name or meaning.
    """
    from vit_jax.commands import configs
    from vit_jax.config import Config

    field = options.field.removeprefix("config.")
    if overrides and not options.config:
        raise ValueError(f"{overrides[0]} changes a recipe: name the recipe with --config FILE")
    config = configs.from_file(options.config, overrides) if options.config else None
    known = list(entries(Config, schema.plain(config) if config else {}))
    found = [entry for entry in known if not field or _is_below(entry, field)]
    found = found or [entry for entry in known if _mentions(entry, field)]
    if not found:
        paths = {entry.path for entry in known}
        groups = {path.partition(".")[0] for path in paths}
        near = schema.nearest(field, paths | groups)
        near = near if near.startswith("did you mean") else schema.nearest(field, groups)
        raise ValueError(f"no config field has {field!r} in its name or meaning: {near}")
    for line in lines(found, values(config) if config else {}):
        print(printable(line))
    return 0


def _is_below(entry: Entry, field: str) -> bool:
    """Whether an entry is `field`, in the group `field`, or belongs to the choice `field`."""
    of_choice = entry.needs is not None and entry.needs[0] == field
    return of_choice or f"{entry.path}.".startswith(f"{field}.")


def _mentions(entry: Entry, word: str) -> bool:
    """Whether the name or the meaning of a field has a word that begins like this."""
    text = f"{entry.path.replace('_', ' ')} {entry.path} {entry.meaning}"
    return re.search(rf"(?<![a-z]){re.escape(word)}", text, re.IGNORECASE) is not None


def lines(found: Iterable[Entry], given: Mapping[str, str]) -> Iterable[str]:
    """For each group a heading, and for each field a line with its type and its meaning below."""
    for group, members in itertools.groupby(found, key=lambda entry: entry.group):
        yield from ("", *textwrap.wrap(group or "The run:", WIDTH))
        for entry in members:
            selected = entry.needs is None or given.get(entry.needs[0]) == entry.needs[1]
            now = given.get(entry.path, entry.default) if selected else entry.default
            here = f" (here: {now})" if now != entry.default else ""
            first = f"{entry.path} = {entry.default or 'unset'} ({entry.kind}){here}"
            yield from textwrap.wrap(first, WIDTH, initial_indent="  ", subsequent_indent=INDENT)
            yield from textwrap.wrap(
                entry.meaning, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
            )


def values(config: object) -> dict[str, str]:
    """The values of a config by path, as they are typed on the command line."""
    from vit_jax.training import run_config

    typed = {path.removeprefix("."): value for path, value in schema.leaves(config, "")}
    every = run_config.flat(config) | typed  # a duration is one value, not that of each unit
    every = {path: _named(value) for path, value in every.items()}
    return {path: shown(every[path]) for path in every if path.rpartition(".")[0] not in typed}


def _named(value: Any) -> Any:
    """A list of choices as their names: their fields have paths of their own."""
    if not isinstance(value, tuple):
        return value
    return tuple(item["name"] if isinstance(item, Mapping) else item for item in value)
