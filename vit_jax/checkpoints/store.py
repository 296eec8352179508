"""Checkpoints of a run (Orbax), each complete or not there at all."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from vit_jax.checkpoints import background, integrity, old_runs, run_folder, s3
from vit_jax.duration import Duration
from vit_jax.errors import RunFailed

Which = int | Literal["latest", "best"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept of a run."""

    every: Duration = Duration(percent=10.0)  # how often a checkpoint is saved; none: at the end
    keep_last: int = 2  # checkpoints that are kept by their age
    keep_best: int = 1  # checkpoints that are kept by `metric`, besides the last ones
    # What says which is best: METRIC of the held-out measure, or EVALUATOR/METRIC; ema_METRIC is of
    # the averaged parameters. Unset: the held-out measure's first, which is top1 for classifiers.
    metric: str = ""


class Store:
    """Checkpoints of one run, saved in the background. Use as a context manager.

    A state is a dict of trees of arrays: `params`, `ema` where averaged, and the rest. With
    `read_only` nothing is written or cleaned up: the run may be training meanwhile.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        checkpoint: CheckpointConfig,
        *,
        metric: tuple[str, Literal["max", "min"]] | None = None,
        read_only: bool = False,
    ) -> None:
        """`metric` says what chooses the best and which way it gets better; unset: `checkpoint`."""
        self.path = s3.folder(workdir) / "checkpoints"
        name = checkpoint.metric.removeprefix("held_out/")
        self.metric = metric[0] if metric else name
        self._smaller = metric[1] == "min" if metric else name.endswith("loss")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is no folder: move it away, or use another --workdir")
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_Retention(
                    last=checkpoint.keep_last, best=checkpoint.keep_best, value=self._value
                ),
                best_fn=self._rank_or_last,
                # Orbax's own `read_only` does no more, and warns of itself.
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                # It would read the metrics of all steps, and fail where they are damaged.
                lightweight_initialize=True,
                temporary_path_class=integrity.temporary_path(self.path),
            ),
        )
        self._saver = background.Saver(self._manager, listen=not read_only)
        self.notes: dict[int, str] = {}  # what the user should know of a step's metrics
        # Kept here, not asked of Orbax, which does not know a step before it is on disk: all
        # processes must find the same.
        self._values = {step: self._saved_value(step) for step in self.steps}

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self._saver.close()
        except RunFailed:
            if error is None:
                raise

    def save(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Starts saving; the arrays may be donated to the next step as soon as it returns.

        Raises RunFailed where that, or the save before, fails.
        """
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        self._values[step] = self._rank(metrics)
        self._saver.save(step, ocp.args.Composite(**items), metrics)

    def check(self) -> None:
        """Raises RunFailed where a save in the background has failed; cheap, for every step."""
        self._saver.check()

    def wait(self) -> None:
        """Returns when all is saved. Raises RunFailed where it cannot be."""
        self._saver.wait()

    def remove(self, step: int) -> None:
        """Deletes a checkpoint, such as one to be saved again with its metrics."""
        self._manager.delete(step)
        self._values.pop(step, None)

    def is_evaluated(self, step: int) -> bool:
        """Whether a checkpoint was saved with metrics."""
        return (self.path / str(step) / "metrics").exists()

    def restore(self, abstract: Mapping[str, Any], *, step: int) -> dict[str, Any]:
        """The state of a step, placed as `abstract` (shapes with shardings) says.

        All processes must call it. Raises ValueError where the checkpoint is of another model, or
        is not what was saved: its cause is a `Damaged` then.
        """
        try:
            return self._restore(abstract, step)
        except integrity.Damaged as error:
            raise ValueError(
                f"the checkpoint {self.path / str(step)} is damaged: {error}: use another step"
                f" (there are {self.steps})"
            ) from error

    def _restore(self, abstract: Mapping[str, Any], step: int) -> dict[str, Any]:
        items = _items(abstract)
        checked = integrity.verify_together(self.path / str(step), step=step, items=items)
        try:
            old = old_runs.is_old(self.path / str(step) / "params", items)
            args = (
                old_runs.restore_args(items)
                if old
                else {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
            )
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = " ".join(str(error).split())[:300]
            if not checked:  # what cannot be read may be damaged
                raise integrity.Damaged(f"it cannot be read: {reason}") from error
            raise ValueError(
                f"the checkpoint {self.path / str(step)} cannot be read, though it is what was"
                f" saved: {reason}"
            ) from error
        state = {name: restored[name] for name in items}
        state = old_runs.read(state, like=items) if old else state
        state = {**state.pop("rest", {}), **state}
        if not checked and "step" in state and int(state["step"]) != step:
            raise integrity.Damaged(
                f"it is the checkpoint of step {int(state['step'])} under another name"
            )
        return state

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics are better than those of all checkpoints."""
        value = self._rank(metrics)
        return value is not None and all(
            value > other for other in self._values.values() if other is not None
        )

    def find(self, which: Which) -> int:
        """The step that `which` names. Raises ValueError where there is none."""
        return self.candidates(which)[0]

    def candidates(self, which: Which) -> list[int]:
        """The step that `which` names, and those to take in its place, the nearest to it first.

        Raises ValueError where there is none.
        """
        if isinstance(which, int):
            if which not in self.steps:
                raise ValueError(f"no step {which} in {self.path}: there are {self.steps}")
            return [which]
        if not self.steps:
            raise ValueError(f"no finished checkpoint in {self.path}: train first")
        if which == "latest":
            return self.steps[::-1]

        def rank(step: int) -> tuple[float, int]:
            value = self._value(step)
            return (-math.inf if value is None else value, step)

        return sorted(self.steps, key=rank, reverse=True)

    def _value(self, step: int) -> float | None:
        """By what steps are compared, the larger the better; None where it is not known."""
        return self._values.get(step)

    def _saved_value(self, step: int) -> float | None:
        try:
            integrity.verify_metrics(self.path / str(step), step=step)
            metrics = self._manager.metrics(step) or {}
            return self._rank(metrics)
        except Exception as error:  # JSON of anything
            reason = str(error) if isinstance(error, integrity.Damaged) else "they cannot be read"
            self.notes[step] = (
                f"the metrics of checkpoint {step} are damaged ({reason}): it counts as one"
                " without metrics when the best is asked for"
            )
            return None

    def _rank_or_last(self, metrics: Mapping[str, float]) -> float:
        rank = self._rank(metrics)
        return -math.inf if rank is None else rank

    def _rank(self, metrics: Mapping[str, float]) -> float | None:
        """The metric that chooses the best, the larger the better; None where it is not there."""
        name, smaller = self.metric, self._smaller
        if not name:
            name = "top1" if "top1" in metrics else "loss"
            smaller = name == "loss"
        if name not in metrics:
            return None
        return -float(metrics[name]) if smaller else float(metrics[name])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Retention(managers.PreservationPolicy):
    """Keeps the last steps and the best ones. Values come from us, not from files each time."""

    last: int
    best: int
    value: Callable[[int], float | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        values = [(value, step) for step in steps if (value := self.value(step)) is not None]
        best = [step for _, step in sorted(values, reverse=True)[: self.best]]
        return [step in steps[-self.last :] or step in best for step in steps]


def _items(state: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and their average apart, so that they can be restored alone."""
    items = {name: state[name] for name in ("params", "ema") if name in state}
    rest = {name: tree for name, tree in state.items() if name not in items}
    return items | ({"rest": rest} if rest else {})


def saved_steps(workdir: str | os.PathLike[str]) -> list[int]:
    """Steps with a finished checkpoint; [] where there is no run."""
    folder = s3.folder(workdir) / "checkpoints"
    return (
        sorted(ocp.utils.checkpoint_steps(folder))
        if run_folder.exists(folder) and folder.is_dir()
        else []
    )


def local_shapes(shapes: Any) -> Any:
    """`shapes`, all of them on the first device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
