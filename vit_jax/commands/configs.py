"""A config from the command line: a recipe's file, and overrides of its fields."""

import dataclasses
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from vit_jax import config as config_lib
from vit_jax.config import Config


def from_file(spec: str, overrides: Sequence[str]) -> Config:
    """The config of `PATH` or `PATH:ARGUMENT`, with overrides such as `--config.seed=1`.

    Raises ValueError where the file is missing, or a field or its value is wrong.
    """
    path = pathlib.Path(spec.split(":")[0])
    if not path.is_file():
        raise ValueError(f"no config file at {path}")
    values = flags.FlagValues()
    argv = _argv(overrides, f"--config={spec}")
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    return _parse(values, argv)


def override(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with overrides. Raises ValueError where a field or its value is wrong."""
    values = flags.FlagValues()
    argv = _argv(overrides)
    fields = ml_collections.ConfigDict(dataclasses.asdict(config))
    config_flags.DEFINE_config_dict("config", fields, flag_values=values, sys_argv=argv)
    return _parse(values, argv)


def _argv(overrides: Sequence[str], *first: str) -> list[str]:
    for text in overrides:
        name, equals, _ = text.partition("=")
        if not equals and not name.startswith("--no"):
            raise ValueError(f"{name} has no value: write {name}=VALUE")
        config_lib.check_override(name.split(".", 1)[1])
    return ["vit_jax", *first, *overrides]


def _parse(values: flags.FlagValues, argv: list[str]) -> Config:
    try:
        values(argv)
    except flags.Error as error:
        raise ValueError(str(error)) from error
    return config_lib.resolve(values.config)
