"""A config from the command line: a recipe's file, and overrides of its fields."""

import dataclasses
import importlib.util
import pathlib
import traceback
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from vit_jax import config as config_lib
from vit_jax.config import Config


def from_file(spec: str, overrides: Sequence[str]) -> Config:
    """The config of `PATH` or `PATH:ARGUMENT`, with overrides such as `--config.seed=1`.

    Raises ValueError where the file is missing or fails, or a field or its value is wrong.
    """
    path, _, argument = spec.partition(":")
    return _override(_recipe(pathlib.Path(path), argument), overrides)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with overrides. Raises ValueError where a field or its value is wrong."""
    return _override(ml_collections.ConfigDict(dataclasses.asdict(config)), overrides)


def _recipe(path: pathlib.Path, argument: str) -> ml_collections.ConfigDict:
    """What `get_config` of a Python file returns."""
    if not path.is_file():
        raise ValueError(f"no config file at {path}")
    spec = importlib.util.spec_from_file_location("recipe", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no config file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        fields = module.get_config(*([argument] if argument else []))
    except Exception as error:  # of the user's code: any
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename == str(path)]
        where = f", line {lines[-1]}" if lines else ""
        raise ValueError(f"{path}{where}: {type(error).__name__}: {error}") from error
    if not isinstance(fields, ml_collections.ConfigDict):
        raise ValueError(f"{path}: get_config() returns {fields!r}, not a ConfigDict")
    return fields


def _override(fields: ml_collections.ConfigDict, overrides: Sequence[str]) -> Config:
    for text in overrides:
        name, equals, _ = text.partition("=")
        if not equals and not name.startswith("--no"):
            raise ValueError(f"{name} has no value: write {name}=VALUE")
        path = name.split(".", 1)[1]
        config_lib.check_override(path)
        values = flags.FlagValues()
        try:
            config_flags.DEFINE_config_dict("config", fields, flag_values=values, sys_argv=[text])
            values(["vit_jax", text])
        except (flags.Error, ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{text}: {_wanted(path)}") from error
        fields = values.config
    return config_lib.resolve(fields)


def _wanted(path: str) -> str:
    """What a field can be set to, told by its default."""
    value: Any = config_lib.default_config()
    for part in path.split("."):
        value = value[part]
    if isinstance(value, ml_collections.ConfigDict):
        return f"set its fields one by one: {', '.join(f'{path}.{field}' for field in value)}"
    return f"the value must be of type {type(value).__name__}, as the default {value!r}"
