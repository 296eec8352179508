"""Resuming a run: its latest state, and what is written before its next step."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax.checkpoints import fallback, run_folder
from vit_jax.config import Config
from vit_jax.training import length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resumption:
    """A run that resumes after `step`. Nothing is changed until `write`."""

    workdir: str | os.PathLike[str]
    step: int
    state: dict[str, Any]
    notes: tuple[str, ...]
    aside: list[tuple[epath.Path, epath.Path]]  # damaged checkpoints, and their new names
    new_length: length.NewLength | None

    def write(self) -> None:
        """Called by one process. Raises ValueError if the workdir cannot be written to."""
        for folder, name in self.aside:
            try:
                fallback.move(folder, name)
            except OSError as error:
                raise ValueError(f"cannot write to the workdir {self.workdir}: {error}") from error
        run_folder.renew_card(self.workdir)
        if self.new_length:
            self.new_length.write(self.workdir)


def resume(
    workdir: str | os.PathLike[str],
    config: Config,
    abstract: Mapping[str, Any],
    *,
    dataset_size: int,
) -> Resumption:
    """The latest state that can be read, placed as `abstract` says.

    Raises ValueError if there is none, or if `config` makes the run shorter than it is.
    """
    found = fallback.resume(workdir, config.checkpoint, abstract)
    new_length = length.change(workdir, config, step=found.step, dataset_size=dataset_size)
    aside = fallback.put_aside(workdir, found)
    notes = found.notes
    notes += tuple(
        f"{folder} is kept as {name.name}: delete it when you do not need it"
        for folder, name in aside
    )
    return Resumption(
        workdir=workdir,
        step=found.step,
        state=found.state,
        notes=notes + (new_length.notes if new_length else ()),
        aside=aside,
        new_length=new_length,
    )
