"""The config.json of a run: written, read, and compared with the config that resumes the run."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vit_jax import config as config_lib
from vit_jax import schema
from vit_jax.checkpoints import run_folder, s3
from vit_jax.config import Config, Optimization

# Fields that may differ when a run is resumed, because they do not change its result. What a run
# started from is in its config.json: see `with_own_start`.
RUN_OPTIONS = (
    *(
        "mesh",
        "compiler_options",
        "evaluate_every",
        "evaluators",
        "eval_batch_size",
        "log_every",
        "writers",
        "report",
        "checkpoint",
        "init_from",
    ),
    *("init_state", "total"),  # `training.length` notes what another length changes
    *("data.threads", "data.prefetch", "data.max_bad", "data.path", "data.accept_changes"),
    *("model.remat", "model.unroll", "model.attention"),
)


def write_run(workdir: str | os.PathLike[str], config: Config, card: run_folder.Card) -> None:
    """Writes config.json and model.json. Raises ValueError if `workdir` cannot be written to."""
    run_folder.write_run(workdir, config_lib.to_fields(config), card)


def with_own_start(workdir: str | os.PathLike[str], config: Config) -> Config:
    """The config that resumes a run, with what the run started from: its average depends on it.

    Raises ValueError if config.json is missing or damaged.
    """
    own = read_config(workdir)
    return dataclasses.replace(config, init_from=own.init_from, init_state=own.init_state)


def write_config(workdir: str | os.PathLike[str], config: Config) -> None:
    """Writes config.json again. Raises ValueError if `workdir` cannot be written to."""
    run_folder.write_json(workdir, run_folder.CONFIG, config_lib.to_fields(config))


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The config of a run. Raises ValueError if it is missing or damaged."""
    fields = run_folder.read_fields(workdir)
    with _named(workdir):
        return config_lib.of_fields(fields)


def read_optimizer(workdir: str | os.PathLike[str]) -> Optimization:
    """The optimizer of a run, and what it trains. Raises ValueError if it is missing or damaged."""
    fields = run_folder.read_fields(workdir)
    with _named(workdir):
        return config_lib.optimization_of(fields)


@contextlib.contextmanager
def _named(workdir: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{workdir}/config.json: {error}") from error


def check_same_run(workdir: str | os.PathLike[str], config: Config) -> None:
    """Raises ValueError that names what differs if `workdir` holds a run with another config."""
    if not run_folder.exists(s3.folder(workdir) / "config.json"):
        return
    before = read_config(workdir)
    if differing := differences(before, _with_files_of(before, config)):
        raise ValueError(
            f"{workdir} holds a run with another config ({'; '.join(differing)}):"
            " use another --workdir, or the same config to resume"
        )


def _with_files_of(before: Config, config: Config) -> Config:
    """The config with the paths of frozen models and of teachers' answers as they were.

    They may have moved: `frozen.check_same` compares the content.
    """
    old: Any = before.objective
    new: Any = config.objective
    if type(old) is not type(new):
        return config
    paths = {name: getattr(old, name) for name in _files(old) & _files(new)}
    return dataclasses.replace(config, objective=dataclasses.replace(new, **paths))


def _files(objective: Any) -> set[str]:
    """The fields of an objective that name a frozen model or a file."""
    return {*objective.frozen_models(), *(table.field for table in objective.tables().values())}


def replaced_run(workdir: str | os.PathLike[str], config: Config) -> str:
    """A note that a new run replaces a run without a checkpoint; "" if there is no run.

    Raises ValueError if there is a config.json that is not of a run: it is not replaced.
    """
    if not run_folder.exists(s3.folder(workdir) / "config.json"):
        return ""
    try:
        other = differences(read_config(workdir), config)
    except ValueError as error:
        raise ValueError(f"{error}: move that file away, or use another --workdir") from error
    change = f", with another config ({'; '.join(other)})" if other else ""
    return f"note: {workdir} holds a run that saved nothing: it starts again{change}"


def flat(config: Any) -> dict[str, Any]:
    """Every field of a config, or of a part of it, by its path, such as `data.path`."""
    return dict(_flat(schema.plain(config), ""))


def differences(there: Any, here: Any) -> list[str]:
    """A text for each field that changes the result and differs.

    If a choice differs, its name is listed, but no fields that only one of its entries has.
    """
    old, new = (_matters(flat(config)) for config in (there, here))
    differing = {path for path in old.keys() & new.keys() if old[path] != new[path]}
    explained = tuple(_of_choices(there, differing))
    differing |= {path for path in old.keys() ^ new.keys() if not f"{path}.".startswith(explained)}
    return [
        f"{path} is {_shown(old, path)} there and {_shown(new, path)} here"
        for path in dict.fromkeys((*old, *new))
        if path in differing
    ]


def decisive(config: Config) -> dict[str, Any]:
    """The fields that change the result of a run, by their paths."""
    return _matters(flat(config))


def _flat(fields: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _of_choices(config: Any, paths: Iterable[str]) -> Iterator[str]:
    """For each choice among the paths, every field of its entries, such as `optimizer.b1.`."""
    values = schema.plain(config)
    for path in paths:
        target = schema.locate(type(config), path.split("."), values, "config")
        for name in target.choice.fields() if target.choice else ():
            yield ".".join((*path.split(".")[:-1], name, ""))


def _matters(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that change the result of a run."""
    options = tuple(f"{option}." for option in RUN_OPTIONS)
    return {path: v for path, v in fields.items() if not f"{path}.".startswith(options)}


def _shown(fields: Mapping[str, Any], path: str) -> str:
    return repr(fields[path]) if path in fields else "not set"
