"""A run whose `config.total` changes when it is resumed: what this changes, noted and recorded."""

import dataclasses
import os

from vit_jax.checkpoints import run_folder
from vit_jax.config import Config
from vit_jax.evaluators import HELD_OUT
from vit_jax.training import run_config, setup

HISTORY = "history.json"  # in the workdir: every change of `config.total`, and its step


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewLength:
    """The change of a run's length after step `step`."""

    step: int
    before: Config
    now: Config
    notes: tuple[str, ...]

    def write(self, workdir: str | os.PathLike[str]) -> None:
        """Adds to history.json, then changes config.json, each whole or not at all."""
        total = {"before": self.before.total, "now": self.now.total}
        entry = {"step": self.step, **{k: dataclasses.asdict(v) for k, v in total.items()}}
        history = run_folder.read_json(workdir, HISTORY) or {"total": []}
        if entry not in history["total"]:  # a kill may have come between the two files
            history["total"].append(entry)
            run_folder.write_json(workdir, HISTORY, history)
        run_config.write_config(workdir, dataclasses.replace(self.before, total=self.now.total))


def change(
    workdir: str | os.PathLike[str], config: Config, *, step: int, dataset_size: int
) -> NewLength | None:
    """What another `config.total` changes in the run in `workdir`, saved at `step`; None if equal.

    Raises ValueError if the run would end before that step.
    """
    before = run_config.read_config(workdir)
    if before.total == config.total:
        return None
    here = setup.lengths(config, dataset_size=dataset_size)
    there = setup.lengths(before, dataset_size=dataset_size)
    if here.total < step:
        raise ValueError(
            f"config.total is {here.total} steps, but {workdir} is saved at step {step} of"
            f" {there.total}: a run cannot become shorter than it is; for a shorter one use"
            " another --workdir, and this workdir as config.init_from"
        )
    notes = []
    if here.total != there.total:
        notes.append(
            f"config.total: the run is {here.total} steps long now, it was {there.total}. The"
            " schedule follows the new length, as do a warm-up and a cooldown in percent and the"
            " shares of config.progressive: the"
            f" learning rate after step {step} is {rate(config, step, dataset_size):.4g}, with the"
            f" old length it was {rate(before, step, dataset_size):.4g}"
        )
    periods = {}
    for name, new in here.evaluate_every.items():
        what = "evaluation" if name == HELD_OUT else f"evaluation by {name}"
        periods[what] = (there.evaluate_every.get(name, new), new)
    periods["checkpoint"] = (there.checkpoint_every, here.checkpoint_every)
    for what, (old, new) in periods.items():
        if old != new:
            notes.append(f"{what} every {new} steps now, it was every {old}")
    return NewLength(step=step, before=before, now=config, notes=tuple(notes))


def rate(config: Config, step: int, dataset_size: int) -> float:
    """The learning rate of the update that follows `step`."""
    return float(setup.schedule(config, dataset_size=dataset_size)(step))
