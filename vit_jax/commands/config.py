"""`config`: the fields of a recipe, what each can be and what it means."""

import argparse
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from vit_jax import schema
from vit_jax.commands import configs
from vit_jax.config import Config
from vit_jax.schema.describe import Entry, entries, shown
from vit_jax.text import printable
from vit_jax.training import run_config

WIDTH, INDENT = 100, " " * 8
HINT = "Fields of a config, what each can be and what it means: vit_jax config [FIELD]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("field", nargs="?", default="", help="show this one, or those below it")
    parser.add_argument("--config", metavar="FILE[:ARGUMENT]", help="show a recipe's values too")
    parser.set_defaults(config_overrides=True)


def run(options: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Show the fields of a config: type, default and meaning.

    Those of a choice are there where it is taken: --config.optimizer.momentum=0.9 needs
    --config.optimizer.name=sgd. With --config, and --config.FIELD=VALUE: what a recipe sets.
    """
    field = options.field.removeprefix("config.")
    if overrides and not options.config:
        raise ValueError(f"{overrides[0]} changes a recipe: name it with --config FILE")
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
    """Whether a field is this one, one of its group, or one of the choice that it names."""
    of_choice = entry.needs is not None and entry.needs[0] == field
    return of_choice or f"{entry.path}.".startswith(f"{field}.")


def lines(found: Iterable[Entry], values: Mapping[str, str]) -> Iterable[str]:
    """Of each group a heading, of each field what it is and below that what it means."""
    for group, members in itertools.groupby(found, key=lambda entry: entry.group):
        yield from ("", *textwrap.wrap(group or "of the run:", WIDTH))
        for entry in members:
            taken = entry.needs is None or values.get(entry.needs[0]) == entry.needs[1]
            now = values.get(entry.path, entry.default) if taken else entry.default
            here = f" (here: {now})" if now != entry.default else ""
            first = f"{entry.path} = {entry.default or 'unset'} ({entry.kind}){here}"
            yield from textwrap.wrap(first, WIDTH, initial_indent="  ", subsequent_indent=INDENT)
            yield from textwrap.wrap(
                entry.meaning, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT
            )


def _values(config: Config) -> dict[str, str]:
    """What a config holds, by path, as it is typed."""
    typed = {path.removeprefix("."): value for path, value in schema.leaves(config, "")}
    return {path: shown(value) for path, value in (run_config.flat(config) | typed).items()}
