"""Reads the previous checkpoint where the wanted one is damaged."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax.checkpoints import integrity, s3
from vit_jax.checkpoints.store import CheckpointConfig, Store, Which

ASIDE = ".damaged"  # added to the name of a damaged folder: it is not read any more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A state that was read, with messages about it."""

    step: int
    state: dict[str, Any]
    damaged: tuple[int, ...] = ()  # steps that were tried before this one
    notes: tuple[str, ...] = ()  # messages for the user


def restore(
    saved: Store, abstract: Mapping[str, Any], which: Which, *, substitute: bool
) -> Restored:
    """The state of the step that `which` names.

    With `substitute`, a damaged latest (best) checkpoint is replaced by the next latest (next
    best), and `notes` say so. A step that is given as a number has no substitute. Raises ValueError
    that names the damaged checkpoints.
    """
    damaged: dict[int, str] = {}
    strict = not substitute or isinstance(which, int)
    for step in saved.candidates(which):
        try:
            state = saved.restore(abstract, step=step)
        except ValueError as error:
            if strict or not isinstance(error.__cause__, integrity.Damaged):
                raise
            damaged[step] = str(error.__cause__)
            continue
        notes = [f"checkpoint {bad} is damaged: {why}" for bad, why in damaged.items()]
        notes += [note for scored, note in saved.notes.items() if scored not in damaged]
        if damaged:
            notes.insert(len(damaged), f"checkpoint {step} is used instead")
        if not (saved.path / str(step) / integrity.NAME).exists():
            notes.append(
                f"checkpoint {step} was saved without checksums: damage to it may go unnoticed"
            )
        return Restored(step=step, state=state, damaged=tuple(damaged), notes=tuple(notes))
    reasons = "; ".join(f"{step}: {why}" for step, why in damaged.items())
    raise ValueError(
        f"all checkpoints in {saved.path} are damaged ({reasons}): restore one of them from a copy,"
        " or start anew in another --workdir"
    )


def resume(
    workdir: str | os.PathLike[str], checkpoint: CheckpointConfig, abstract: Mapping[str, Any]
) -> Restored:
    """The latest readable state of a run. Writes nothing: see `put_aside` for damaged steps."""
    with Store(workdir, checkpoint, read_only=True) as saved:
        return restore(saved, abstract, "latest", substitute=True)


def put_aside(
    workdir: str | os.PathLike[str], found: Restored
) -> list[tuple[epath.Path, epath.Path]]:
    """The folder of each damaged step and its new name: the run will save these steps again."""
    folder = s3.folder(workdir) / "checkpoints"
    return [(folder / str(step), _free(folder / str(step))) for step in found.damaged]


def move(folder: epath.Path, name: epath.Path) -> None:
    """Renames a folder. A bucket has no folders: each file is copied, then all are deleted."""
    if "://" not in os.fspath(folder):
        folder.rename(name)
        return
    for file in integrity.files(folder):
        (folder / file).copy(name / file)
    folder.rmtree()


def _free(folder: epath.Path) -> epath.Path:
    """A name for a damaged folder that is not in use."""
    names = [folder.with_name(folder.name + ASIDE)]
    while names[-1].exists():
        names.append(folder.with_name(f"{folder.name}{ASIDE}-{len(names) + 1}"))
    return names[-1]
