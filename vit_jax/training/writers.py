"""Other places for the metrics of a run, besides metrics.jsonl and TensorBoard's events."""

import csv
import dataclasses
import importlib.util
import io
import logging
import os
import pathlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vit_jax.checkpoints import run_folder
from vit_jax.training.events import tag
from vit_jax.workdir import lines, place

Workdir = str | os.PathLike[str]
_LOG = logging.getLogger(__name__)


class Open(Protocol):
    """A place that is written to. Only the primary process has one."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line of metrics.jsonl."""

    def flush(self) -> None:
        """Called before each checkpoint, when metrics.jsonl is complete up to its step."""

    def close(self) -> None:
        """Called once, at the end of the run, also when it fails."""


class Writer(Protocol):
    """An entry of `WRITERS`: a dataclass whose fields are its part of the config."""

    def check(self) -> None:
        """Raises ValueError if the writer cannot be used here; before anything is written."""

    def open(self, workdir: Workdir, *, config: Mapping[str, Any]) -> Open:
        """Begins, or goes on after a resume; `config` is the content of config.json."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Csv:
    """A table of all lines, metrics.csv: a column for each metric, written at each checkpoint."""

    def check(self) -> None:
        pass

    def open(self, workdir: Workdir, *, config: Mapping[str, Any]) -> Open:
        return _Table(workdir)


class _Table:
    def __init__(self, workdir: Workdir) -> None:
        self._workdir = workdir

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        pass  # metrics.jsonl has it

    def flush(self) -> None:
        rows = lines.read(self._workdir).good
        columns = dict.fromkeys(name for row in rows for name in row)
        text = io.StringIO()
        table = csv.DictWriter(text, list(columns), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        place.write_whole(place.folder(self._workdir) / "metrics.csv", text.getvalue().encode())

    def close(self) -> None:
        self.flush()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wandb:
    """Weights & Biases. Its own environment variables apply, such as WANDB_MODE=offline."""

    project: str = "vit_jax"  # the project of the run
    entity: str = ""  # the user or the team; unset: the default of the account

    def check(self) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ValueError(
                "config.writers has wandb, which is not installed: pip install vit_jax[wandb]"
            )

    def open(self, workdir: Workdir, *, config: Mapping[str, Any]) -> Open:
        return _WandbRun(self, workdir, config)


class _WandbRun:
    """A run of Weights & Biases. A resumed run goes on there too: wandb.json has its id."""

    def __init__(self, options: Wandb, workdir: Workdir, config: Mapping[str, Any]) -> None:
        import wandb

        known = run_folder.read_json(workdir, "wandb.json") or {"id": uuid.uuid4().hex[:12]}
        run_folder.write_json(workdir, "wandb.json", known)
        self._error = wandb.errors.Error
        self._run = wandb.init(
            project=options.project,
            entity=options.entity or None,
            id=str(known["id"]),
            name=place.folder(workdir).name,
            resume="allow",
            config=dict(config),
            dir=None if place.is_bucket(place.folder(workdir)) else str(pathlib.Path(workdir)),
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self._run.log({tag(name): value for name, value in metrics.items()}, step=step)
        except self._error as error:  # the run does not need it
            _LOG.warning("wandb: step %d was not written: %s", step, error)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


class Calls:
    """Calls a function with each line, for a program that trains."""

    def __init__(self, function: Callable[[int, Mapping[str, float]], object]) -> None:
        self._function = function

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self._function(step, metrics)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


# The writers by their names in a config.
WRITERS: dict[str, type[Writer]] = {"csv": Csv, "wandb": Wandb}
