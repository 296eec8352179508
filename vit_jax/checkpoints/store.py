"""The folder of a run: its config, its model card and its checkpoints (Orbax).

config.json   the resolved config       model.json    options, class names, preprocessing
data.json     what the splits hold      (training/datasets.py)
checkpoints/  one folder a step, complete or not there at all
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from vit_jax import config as config_lib
from vit_jax import plain_json
from vit_jax.checkpoints import background, integrity, s3
from vit_jax.config import Config
from vit_jax.errors import RunFailed
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options
from vit_jax.workdir import place

Which = int | Literal["latest", "best"]

# What may differ when a run is resumed: nothing that changes its result.
RUN_OPTIONS = (
    *("mesh", "evaluate_every", "eval_batch_size", "log_every", "checkpoint", "init_from"),
    *("init_state", "total"),  # `training.length` says what another length does
    *("data.threads", "data.prefetch", "data.max_bad", "data.path", "data.accept_changes"),
    *("model.remat", "model.unroll", "model.attention"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What is needed to use a run's model without its training config."""

    options: Options
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    resize: Methods = Methods()  # of the family that it started from


class Store:
    """Checkpoints of one run, saved in the background. Use as a context manager.

    A state is a dict of trees of arrays: `params`, `ema` where averaged, and the rest. With
    `read_only` nothing is written or cleaned up: the run may be training meanwhile.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        checkpoint: config_lib.CheckpointConfig,
        *,
        read_only: bool = False,
    ) -> None:
        self.path = s3.folder(workdir) / "checkpoints"
        self.metric = checkpoint.metric
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is no folder: move it away, or use another --workdir")
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_Retention(
                    last=checkpoint.keep_last, best=checkpoint.keep_best, value=self._value
                ),
                best_fn=self._metric,
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
        self._values[step] = self._metric(metrics) if metrics else None
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
        args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
        try:
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
        value = self._metric(metrics)
        return all(value > other for other in self._values.values() if other is not None)

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
            return float(self._metric(metrics)) if self.metric in metrics else None
        except Exception as error:  # JSON of anything
            reason = str(error) if isinstance(error, integrity.Damaged) else "they cannot be read"
            self.notes[step] = (
                f"the metrics of checkpoint {step} are damaged ({reason}): it counts as one"
                " without metrics when the best is asked for"
            )
            return None

    def _metric(self, metrics: Mapping[str, float]) -> float:
        # The smaller a loss the better.
        return -metrics[self.metric] if self.metric.endswith("loss") else metrics[self.metric]


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


def write_run(workdir: str | os.PathLike[str], config: Config, card: Card) -> None:
    """Writes config.json and model.json, each whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    folder = s3.folder(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        card_text = json.dumps(dataclasses.asdict(card), indent=2) + "\n"
        place.write_whole(folder / "model.json", card_text.encode())
        place.write_whole(folder / "config.json", config_lib.to_json(config).encode())
    except OSError as error:
        raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error


def write_card(workdir: str | os.PathLike[str], card: Card) -> None:
    """Writes model.json anew. Raises ValueError where `workdir` cannot be written to."""
    write_json(workdir, "model.json", dataclasses.asdict(card))


def write_json(workdir: str | os.PathLike[str], name: str, content: Mapping[str, Any]) -> None:
    """Writes a file of JSON into the folder of a run as `write_text` does."""
    write_text(workdir, name, json.dumps(content, indent=1) + "\n")


def write_text(workdir: str | os.PathLike[str], name: str, text: str) -> None:
    """Writes a file into the folder of a run, whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    try:
        place.write_whole(s3.folder(workdir) / name, text.encode())
    except OSError as error:
        raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error


def write_config(workdir: str | os.PathLike[str], config: Config) -> None:
    """Writes config.json anew. Raises ValueError where `workdir` cannot be written to."""
    write_text(workdir, "config.json", config_lib.to_json(config))


def read_json(workdir: str | os.PathLike[str], name: str) -> Any:
    """What such a file holds; None where there is none. Raises ValueError where it is damaged."""
    return _read(workdir, name) if (s3.folder(workdir) / name).exists() else None


def read_card(workdir: str | os.PathLike[str]) -> Card:
    """The model of a run. Raises ValueError where there is none, or it contradicts itself."""
    card = config_lib.build(Card, _read(workdir, "model.json"), "model.json")
    expects, damaged = card.preprocessing, f"{workdir}/model.json is damaged"
    classes, names = card.options.num_classes, len(card.class_names)
    if names not in (0, classes):
        raise ValueError(f"{damaged}: it names {names} of the model's {classes} classes")
    if expects.image_size != card.options.image_size:
        raise ValueError(
            f"{damaged}: its images are of {expects.image_size}, its model is for"
            f" {card.options.image_size}"
        )
    if not len(expects.mean) == len(expects.std) == card.options.channels:
        raise ValueError(
            f"{damaged}: it has mean {expects.mean} and std {expects.std} for"
            f" {card.options.channels} channels"
        )
    return card


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The config of a run. Raises ValueError where there is none."""
    return config_lib.resolve(_read(workdir, "config.json"))


def check_same_run(workdir: str | os.PathLike[str], config: Config) -> None:
    """Raises ValueError if `workdir` holds a run of another config, naming what differs."""
    if not _exists(s3.folder(workdir) / "config.json"):
        return
    if differing := _differing(read_config(workdir), config):
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(differing)}):"
            " use another --workdir, or the same config to resume"
        )


def replaced_run(workdir: str | os.PathLike[str], config: Config) -> str:
    """In words, which run without any checkpoint a new one replaces; "" where there is none."""
    if not _exists(s3.folder(workdir) / "config.json"):
        return ""
    try:
        other = _differing(read_config(workdir), config)
    except ValueError:
        other = ["its config.json is damaged"]
    change = f", with another config ({'; '.join(other)})" if other else ""
    return f"note: {workdir} holds a run that saved nothing: it starts anew{change}"


def _differing(there: Config, here: Config) -> list[str]:
    """The fields that change the result, where their values differ."""
    old, new = (flat(dataclasses.asdict(config)) for config in (there, here))
    return [
        f"{path} is {old[path]!r} there and {new[path]!r} here"
        for path in old
        if old[path] != new[path]
        and not any(path == o or path.startswith(o + ".") for o in RUN_OPTIONS)
    ]


def _items(state: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and their average apart, so that they can be restored alone."""
    items = {name: state[name] for name in ("params", "ema") if name in state}
    rest = {name: tree for name, tree in state.items() if name not in items}
    return items | ({"rest": rest} if rest else {})


def _read(workdir: str | os.PathLike[str], name: str) -> Any:
    path = s3.folder(workdir) / name
    if not _exists(path):
        raise ValueError(f"{workdir} is no run: it has no {name}")
    try:
        return plain_json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}: restore it, or start anew") from error


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their path, such as `data.path`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found


def saved_steps(workdir: str | os.PathLike[str]) -> list[int]:
    """Steps with a finished checkpoint; [] where there is no run."""
    folder = s3.folder(workdir) / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(folder)) if _is_dir(folder) else []


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the folder of a run of ours."""
    return _exists(s3.folder(path) / "model.json")


def _is_dir(path: epath.Path) -> bool:
    return _exists(path) and path.is_dir()


def _exists(path: epath.Path) -> bool:
    """Whether it is there; a path that no file can have is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def local_shapes(shapes: Any) -> Any:
    """`shapes`, all of them on the first device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
