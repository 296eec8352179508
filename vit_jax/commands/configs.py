"""A config from the command line: the file of a recipe, and overrides of its fields."""

import ast
import collections
import contextlib
import difflib
import importlib.util
import inspect
import pathlib
import re
import traceback
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

import ml_collections
from absl import flags
from ml_collections import config_dict, config_flags

from vit_jax import config as config_lib
from vit_jax import config_formats, schema
from vit_jax.config import Config
from vit_jax.schema import describe


def from_file(spec: str, overrides: Sequence[str]) -> Config:
    """The config of `PATH` or `PATH:ARGUMENT`, with overrides such as `--config.seed=1`.

    Raises ValueError if the file is missing or fails, or if a field or its value is wrong.
    """
    return read(spec, overrides)[0]


def read(spec: str, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """The config as `from_file` returns it, and notes for the user about it."""
    path, _, argument = spec.partition(":")
    recipe = config_lib.plain_fields(_recipe(pathlib.Path(path), argument))
    values, renamed = config_formats.with_new_names(recipe)
    try:
        with contextlib.suppress(schema.Missing):  # the command line may set the missing field
            schema.build(Config, values, "config")  # report errors of the recipe itself first
    except ValueError as error:
        _locate(error, path)
        raise
    try:
        config, notes = _override(values, overrides)
    except ValueError as error:
        if not overrides:  # which may be what is wrong
            _locate(error, path)
        raise
    return config, [*(f"note: {path}: {note}" for note in renamed), *notes]


def override(config: Config, overrides: Sequence[str]) -> tuple[Config, list[str]]:
    """`config` with overrides, and notes for the user, as `read` returns them."""
    return _override(schema.plain(config), overrides)


def check_used(overrides: Sequence[str], parts: Sequence[str], *, command: str) -> None:
    """Raises ValueError for a field outside the `parts` of a config that a command uses.

    `command` begins the message, as in "label reads images and".
    """
    for text in overrides:
        field = text.partition("=")[0].partition(".")[2]
        if field.partition(".")[0] not in parts:
            raise ValueError(
                f"{text}: {command} does not use config.{field}: it uses only {', '.join(parts)}"
            )


def _recipe(path: pathlib.Path, argument: str) -> ml_collections.ConfigDict:
    """The value of `get_config` in a Python file. Raises ValueError if that fails."""
    if not path.is_file():
        raise ValueError(f"no recipe at {path}")
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a recipe: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = module.get_config
        if argument and not inspect.signature(get_config).parameters:
            raise ValueError(f"it has no variants: leave out :{argument}")
        fields = get_config(*([argument] if argument else []))
    except (Exception, SystemExit) as error:  # the user's code may raise any kind
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        text = error.msg if isinstance(error, SyntaxError) else error
        meant = _meant(argument, getattr(module, "VARIANTS", ()))
        raise ValueError(f"{_place(path, error)}: {kind}{text}{meant}") from error
    if not isinstance(fields, ml_collections.ConfigDict):
        raise ValueError(f"{path}: get_config() returns {fields!r}, not a ConfigDict")
    return fields


def _place(path: pathlib.Path, error: BaseException) -> str:
    """The recipe and its line that failed, or that called what failed."""
    own = str(path.absolute())
    if isinstance(error, SyntaxError) and error.filename == own:
        return f"{path}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == own]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _locate(error: ValueError, path: str) -> None:
    """Adds to the error about a field the recipe, and the line that sets it if only one does."""
    named = re.search(r"config((?:\.\w+)+)", str(error))
    lines = _set_in(path).get(named[1], []) if named else []
    where = f"{path}, line {lines[0]}" if len(lines) == 1 else path
    error.args = (f"{where}: {error}",)  # the same object keeps its traceback


def _set_in(path: str) -> dict[str, list[int]]:
    """The lines of a recipe that set each field, such as `.model.width`, by any variable's name."""
    found = collections.defaultdict(list)
    for node in ast.walk(ast.parse(pathlib.Path(path).read_bytes())):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found["." + ast.unparse(node).partition(".")[2]].append(node.lineno)
    return found


def _meant(variant: str, known: Sequence[str]) -> str:
    """A hint at the nearest variant of a recipe, for a message."""
    if variant in known:
        return ""
    close = difflib.get_close_matches(variant, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _override(values: dict[str, Any], overrides: Sequence[str]) -> tuple[Config, list[str]]:
    given = [_read(text) for text in overrides]
    listed = [o for o in given if ".".join(o.path) in config_formats.AUGMENTATIONS]
    values, moved = _with_entries(values, listed)
    values, changes = schema.apply(Config, values, [o for o in given if o not in listed])
    values, named = config_formats.with_zoo_name(values)
    notes = (*_renamed(overrides), *moved, *changes, *named)
    return config_lib.of_values(values), [f"note: {note}" for note in notes]


def _with_entries(
    values: dict[str, Any], overrides: Sequence[schema.Override]
) -> tuple[dict[str, Any], list[str]]:
    """The values, after overrides of old fields that are entries of `augment` now, and notes."""
    data = dict(values.get("data", {}))
    for override in overrides:
        kind = config_formats.AUGMENTATIONS[".".join(override.path)]
        data[override.path[-1]] = override.parse(schema.Target(kind=kind, default=kind()))
    return config_formats.with_new_names({**values, "data": data})


def _read(text: str) -> schema.Override:
    """The override of `--config.PATH=VALUE` or `--noconfig.PATH`."""
    name, equals, value = text.partition("=")
    if not equals and not name.startswith("--no"):
        raise ValueError(f"{name} has no value: write {name}=VALUE")
    flag, path = name.split(".", 1)
    value = config_formats.new_value(path, value)
    path = config_formats.new_path(path)

    def parse(target: schema.Target) -> Any:
        typed = _quoted(value, target) if equals else ""
        return _parsed(f"{flag}.value{equals}{typed}", target, path=path, text=text)

    return schema.Override(path=tuple(path.split(".")), text=text, parse=parse)


def _quoted(value: str, target: schema.Target) -> str:
    """The value; a list of texts or choices that is typed without quotes as a Python literal."""
    if (typing.get_origin(target.kind) or target.kind) is not tuple:
        return value
    if not value:
        return "()"
    of_texts = target.choice or typing.get_args(target.kind)[:1] == (str,)
    given = describe.texts(value) if of_texts else None
    return value if given is None else repr(given)


def _parsed(flag: str, target: schema.Target, *, path: str, text: str) -> Any:
    """The value of a flag, read as the type in the schema."""
    if flag.endswith("=none") and types.NoneType in typing.get_args(target.kind):
        return None
    values = flags.FlagValues()
    fields = ml_collections.ConfigDict({"value": _zero(target.kind)})
    try:
        if target.below:
            raise ValueError("a group has no value")
        config_flags.DEFINE_config_dict("config", fields, flag_values=values, sys_argv=[flag])
        values(["vit_jax", flag])
    except (flags.Error, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{text}: {_wanted(target, path)}") from error
    return config_lib.plain_fields(values.config)["value"]


def _zero(kind: Any) -> Any:
    """An example value of a type, which makes a flag of that type."""
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return type(members[0])()
    if kind is object:
        return config_dict.placeholder(object)
    if origin is types.UnionType:
        return _zero(next(member for member in members if member is not types.NoneType))
    return (origin or kind)() if (origin or kind) in (bool, int, float, str, tuple) else ""


def _wanted(target: schema.Target, path: str) -> str:
    """A message that says what a field can be set to."""
    if target.below:
        return f"set its fields one by one: {', '.join(f'{path}.{name}' for name in target.below)}"
    kind = type(_zero(target.kind)).__name__
    if kind == "tuple":
        shown = "" if target.choice else describe.shown(target.default)
        like = f", as in the default {shown}" if shown else ""
        return f"the value must be a list, with commas between its items{like}"
    like = "" if target.default is None else f", as the default {schema.plain(target.default)!r}"
    return f"the value must be of type {kind}{like}"


def _renamed(overrides: Sequence[str]) -> list[str]:
    paths = [text.partition("=")[0].partition(".")[2] for text in overrides]
    return [config_formats.renamed(path) for path in paths if path in config_formats.MOVED]
