"""Checkpoints of a run, saved with Orbax; an incomplete one is never visible."""

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax

from vit_jax.checkpoints import background, integrity, old_runs, orbax, run_folder, s3
from vit_jax.checkpoints.options import CheckpointConfig as CheckpointConfig
from vit_jax.checkpoints.orbax import ocp
from vit_jax.errors import RunFailed

Which = int | Literal["latest", "best"]


class Store:
    """Checkpoints of one run, saved in the background. Use as a context manager.

    A state is a dict of trees of arrays: `params`, `ema` if the run keeps an average, and the rest.
    `read_only` writes and cleans up nothing, because the run may be training.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        checkpoint: CheckpointConfig,
        *,
        metric: tuple[str, Literal["max", "min"]] | None = None,
        read_only: bool = False,
    ) -> None:
        """`metric` is the name and direction of the best's metric; unset: that of `checkpoint`.

        Raises ValueError where the path of the checkpoints is a file.
        """
        self.path = s3.folder(workdir) / "checkpoints"
        name = checkpoint.metric.removeprefix("held_out/")
        self.metric = metric[0] if metric else name
        self._smaller = metric[1] == "min" if metric else name.endswith("loss")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: move it away, or use another --workdir")
        orbax.register()
        self._retention = _Retention(
            last=checkpoint.keep_last, best=checkpoint.keep_best, value=self._value
        )
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._retention,
                best_fn=self._rank_or_last,
                # These two do the same as Orbax's `read_only`, which logs a warning.
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                # Otherwise Orbax reads the metrics of all steps and fails on damaged ones.
                lightweight_initialize=True,
                temporary_path_class=integrity.temporary_path(self.path),
            ),
        )
        self._saver = background.Saver(self._manager, listen=not read_only)
        self.notes: dict[int, str] = {}  # messages about a step's metrics
        # Kept here because Orbax knows a step only when it is on disk, and all processes must
        # find the same values.
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
        """Starts saving. After it returns, the arrays may be donated to the next step.

        Raises RunFailed where this save or the previous one fails.
        """
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        self._values[step] = self._rank(metrics)
        self._saver.save(step, ocp.args.Composite(**items), metrics)

    def check(self) -> None:
        """Raises RunFailed where a save in the background has failed; cheap enough per step."""
        self._saver.check()

    @property
    def is_saving(self) -> bool:
        """Whether a save in the background has not ended yet."""
        return self._saver.is_saving

    def wait(self) -> None:
        """Waits until everything is saved. Raises RunFailed where a save has failed."""
        self._saver.wait()

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds metrics to a checkpoint that has none; then removes those that are not kept.

        All processes must call it, while nothing is being saved. A kill at any moment leaves the
        checkpoint as it was, or with the metrics. Raises RunFailed on all processes.
        """
        problem = ""
        if jax.process_index() == 0:
            try:
                integrity.add_metrics(self.path / str(step), metrics, step=step)
            except Exception as error:  # the libraries of buckets raise many kinds
                problem = background.reason(error)
        if problem := integrity.first_problem(problem):
            raise RunFailed(
                f"the metrics of checkpoint {step} could not be saved in {self.path}: {problem};"
                " the checkpoint is kept: remove the cause and run the same command to go on"
            )
        self._values[step] = self._rank(metrics)
        steps = self.steps
        for old, kept in zip(steps, self._retention.kept(steps), strict=True):
            if not kept:
                self._manager.delete(old)

    def is_evaluated(self, step: int) -> bool:
        """Whether a checkpoint has metrics. Raises Damaged where its checksums.json is."""
        folder = self.path / str(step)
        listed = integrity.has_metrics(folder, step=step)
        return listed and (folder / integrity.METRICS / integrity.METRICS).exists()

    def restore(self, abstract: Mapping[str, Any], *, step: int) -> dict[str, Any]:
        """The state of a step, with the shapes and shardings of `abstract`.

        All processes must call it. Raises ValueError where the checkpoint is of another model or
        is damaged; the cause of the error is a `Damaged` in the second case.
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
            if not checked:  # without checksums, an unreadable checkpoint may be damaged
                raise integrity.Damaged(f"it cannot be read: {reason}") from error
            raise ValueError(
                f"the checkpoint {self.path / str(step)} is not damaged, but cannot be read:"
                f" {reason}"
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
        """Whether these metrics are better than the metrics of every checkpoint."""
        value = self._rank(metrics)
        return value is not None and all(
            value > other for other in self._values.values() if other is not None
        )

    def find(self, which: Which) -> int:
        """The step that `which` names. Raises ValueError where there is none."""
        return self.candidates(which)[0]

    def candidates(self, which: Which) -> list[int]:
        """The step that `which` names, then the steps to try in turn if it is damaged.

        Raises ValueError where there is no such step.
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
        """The value that ranks a step (larger is better); None where it is unknown."""
        return self._values.get(step)

    def _saved_value(self, step: int) -> float | None:
        try:
            if not integrity.has_metrics(self.path / str(step), step=step):
                return None
            integrity.verify_metrics(self.path / str(step), step=step)
            metrics = self._manager.metrics(step) or {}
            return self._rank(metrics)
        except Exception as error:  # the JSON may hold anything
            reason = str(error) if isinstance(error, integrity.Damaged) else "they cannot be read"
            self.notes[step] = (
                f"the metrics of checkpoint {step} are damaged ({reason}): they are ignored in the"
                " search for the best checkpoint"
            )
            return None

    def _rank_or_last(self, metrics: Mapping[str, float]) -> float:
        rank = self._rank(metrics)
        return -math.inf if rank is None else rank

    def _rank(self, metrics: Mapping[str, float]) -> float | None:
        """The metric of the best, negated where smaller is better; None where it is missing."""
        name, smaller = self.metric, self._smaller
        if not name:
            name = "top1" if "top1" in metrics else "loss"
            smaller = name == "loss"
        if name not in metrics:
            return None
        return -float(metrics[name]) if smaller else float(metrics[name])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Retention:
    """Orbax's `PreservationPolicy`: keeps the last steps and the best ones.

    `value` ranks a step without reading files.
    """

    last: int
    best: int
    value: Callable[[int], float | None]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        return self.kept([checkpoint.step for checkpoint in checkpoints])

    def kept(self, steps: Sequence[int]) -> list[bool]:
        """Whether each step is kept; `steps` are in order."""
        values = [(value, step) for step in steps if (value := self.value(step)) is not None]
        best = [step for _, step in sorted(values, reverse=True)[: self.best]]
        return [step in steps[-self.last :] or step in best for step in steps]


def _items(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state split into items `params`, `ema` and `rest`, which can be restored alone."""
    items = {name: state[name] for name in ("params", "ema") if name in state}
    rest = {name: tree for name, tree in state.items() if name not in items}
    return items | ({"rest": rest} if rest else {})


def saved_steps(workdir: str | os.PathLike[str]) -> list[int]:
    """Steps with a finished checkpoint, in order; [] where there is no run."""
    folder = s3.folder(workdir) / "checkpoints"
    return orbax.steps(folder) if run_folder.exists(folder) and folder.is_dir() else []


def local_shapes(shapes: Any) -> Any:
    """`shapes` with every array on the first device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
