"""`config`: shows the fields of a config, their types, defaults and meanings."""

import argparse
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from vit_jax import schema
from vit_jax.schema.describe import Entry, entries, shown
from vit_jax.text import printable

WIDTH, INDENT = 100, " " * 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("field", nargs="?", default="", help="show only this field or group")
    parser.add_argument(
        "--config", metavar="FILE[:ARGUMENT]", help="show the values of a recipe too"
    )
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Show the fields of a config: type, default and meaning.

    The fields of a choice exist only if it is selected: --config.optimizer.momentum=0.9 needs
    --config.optimizer.name=sgd. With --config, and --config.FIELD=VALUE, the values of a recipe are
    shown too.
    """
    from vit_jax.commands import configs
    from vit_jax.config import Config

    field = options.field.removeprefix("config.")
    if overrides and not options.config:
        raise ValueError(f"{overrides[0]} changes a recipe: name the recipe with --config FILE")
    config = configs.from_file(options.config, overrides) if options.config else None
    known = list(entries(Config, schema.plain(config) if config else {}))
    found = [entry for entry in known if not field or _is_below(entry, field)]
    if not found:
        paths = {entry.path for entry in known}
        groups = {path.partition(".")[0] for path in paths}
        raise ValueError(f"unknown config field {field}: {schema.nearest(field, paths | groups)}")
    for line in lines(found, _values(config) if config else {}):
        print(printable(line))
    return 0


def _is_below(entry: Entry, field: str) -> bool:
    """Whether an entry is `field`, in the group `field`, or belongs to the choice `field`."""
    of_choice = entry.needs is not None and entry.needs[0] == field
    return of_choice or f"{entry.path}.".startswith(f"{field}.")


def lines(found: Iterable[Entry], values: Mapping[str, str]) -> Iterable[str]:
    """For each group a heading, and for each field a line with its type and its meaning below."""
    for group, members in itertools.groupby(found, key=lambda entry: entry.group):
        yield from ("", *textwrap.wrap(group or "The run:", WIDTH))
        for entry in members:
            selected = entry.needs is None or values.get(entry.needs[0]) == entry.needs[1]
            now = values.get(entry.path, entry.default) if selected else entry.default
            here = f" (here: {now})" if now != entry.default else ""
            first = f"{entry.path} = {entry.default or 'unset'} ({entry.kind}){here}"
            yield from textwrap.wrap(first, WIDTH, initial_indent="  ", subsequent_indent=INDENT)
            yield from textwrap.wrap(
                entry.meaning, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
            )


def _values(config: object) -> dict[str, str]:
    """The values of a config by path, as they are typed on the command line."""
    from vit_jax.training import run_config

    typed = {path.removeprefix("."): value for path, value in schema.leaves(config, "")}
    return {path: shown(value) for path, value in (run_config.flat(config) | typed).items()}
