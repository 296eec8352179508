"""Which checkpoint is read where the one that was meant is damaged: the one before it."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax.checkpoints import integrity, s3
from vit_jax.checkpoints.store import CheckpointConfig, Store, Which

ASIDE = ".damaged"  # added to the name of a folder that no one reads any more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restored:
    """A state that was read, and what the user should know of it."""

    step: int
    state: dict[str, Any]
    damaged: tuple[int, ...] = ()  # steps that were meant before this one
    notes: tuple[str, ...] = ()


def restore(
    saved: Store, abstract: Mapping[str, Any], which: Which, *, substitute: bool
) -> Restored:
    """The state of the step that `which` names.

    Where that is damaged, the next one by date or rank with `substitute`, which is noted; a step
    that is named by its number has no substitute. Raises ValueError that names what is damaged.
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
                f"checkpoint {step} was saved without checksums: damage of it is not always found"
            )
        return Restored(step=step, state=state, damaged=tuple(damaged), notes=tuple(notes))
    told = "; ".join(f"{step}: {why}" for step, why in damaged.items())
    raise ValueError(
        f"all checkpoints in {saved.path} are damaged ({told}): restore one of them from a copy, or"
        " start anew in another --workdir"
    )


def resume(
    workdir: str | os.PathLike[str], checkpoint: CheckpointConfig, abstract: Mapping[str, Any]
) -> Restored:
    """The latest state of a run that can be read. Changes nothing: `put_aside` comes later."""
    with Store(workdir, checkpoint, read_only=True) as saved:
        return restore(saved, abstract, "latest", substitute=True)


def put_aside(
    workdir: str | os.PathLike[str], found: Restored
) -> list[tuple[epath.Path, epath.Path]]:
    """The folders of damaged steps and the names that they get: the run saves these steps again."""
    folder = s3.folder(workdir) / "checkpoints"
    return [(folder / str(step), _free(folder / str(step))) for step in found.damaged]


def move(folder: epath.Path, name: epath.Path) -> None:
    """Gives a folder another name; on a bucket, which has no folders, file by file."""
    if "://" not in os.fspath(folder):
        folder.rename(name)
        return
    for file in integrity.files(folder):
        (folder / file).copy(name / file)
    folder.rmtree()


def _free(folder: epath.Path) -> epath.Path:
    """A name for a damaged folder that is not taken."""
    names = [folder.with_name(folder.name + ASIDE)]
    while names[-1].exists():
        names.append(folder.with_name(f"{folder.name}{ASIDE}-{len(names) + 1}"))
    return names[-1]
