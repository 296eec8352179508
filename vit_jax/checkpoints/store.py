"""The folder of a run: its config, its model card and its checkpoints (Orbax).

config.json   the resolved config       model.json    options, class names, preprocessing
data.json     what the splits hold      (training/datasets.py)
checkpoints/  one folder a step, complete or not there at all
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from vit_jax import config as config_lib
from vit_jax import plain_json
from vit_jax.config import Config
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Options

Which = int | Literal["latest", "best"]

# What may differ when a run is resumed: nothing that changes its result.
RUN_OPTIONS = (
    *("mesh", "evaluate_every", "eval_batch_size", "log_every", "checkpoint", "init_from"),
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
        self.path = epath.Path(workdir).resolve() / "checkpoints"
        self.metric = checkpoint.metric
        self._manager = ocp.CheckpointManager(
            self.path,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy(checkpoint),
                best_fn=self._metric,
                # Orbax's own `read_only` does no more, and warns of itself.
                create=not read_only,
                cleanup_tmp_directories=not read_only,
            ),
        )
        scored = [(step, self._manager.metrics(step)) for step in self.steps]
        known = [(s, self._metric(m)) for s, m in scored if m and self.metric in m]
        # Kept here, not asked of Orbax, which does not know a step before it is on disk: all
        # processes must find the same.
        self.best = max(known, key=lambda pair: pair[1], default=None)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, step: int, state: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Starts saving; the arrays may be donated to the next step as soon as it returns."""
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        if metrics and self.is_best(metrics):
            self.best = (step, self._metric(metrics))
        self._manager.save(
            step,
            args=ocp.args.Composite(**items),
            metrics=dict(metrics) or None,
            force=True,
        )

    def restore(self, abstract: Mapping[str, Any], *, step: int) -> dict[str, Any]:
        """The state of a step, placed as `abstract` (shapes with shardings) says.

        Raises ValueError where the checkpoint is damaged or of another model.
        """
        items = _items(abstract)
        args = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:  # Orbax and TensorStore raise many kinds
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"the checkpoint {self.path / str(step)} cannot be read: {reason}. Delete that"
                f" folder to go on from an earlier step (there are {self.steps})"
            ) from error
        state = {name: restored[name] for name in items}
        return {**state.pop("rest", {}), **state}

    def wait(self) -> None:
        self._manager.wait_until_finished()

    @property
    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """Whether these metrics are better than those of all checkpoints."""
        return self.best is None or self._metric(metrics) > self.best[1]

    def find(self, which: Which) -> int:
        """The step that `which` names. Raises ValueError where there is none."""
        if isinstance(which, int):
            if which not in self.steps:
                raise ValueError(f"no step {which} in {self.path}: there are {self.steps}")
            return which
        step = self.best[0] if which == "best" and self.best else self.latest
        if step is None:
            raise ValueError(f"no finished checkpoint in {self.path}: train first")
        return step

    def _policy(self, checkpoint: config_lib.CheckpointConfig) -> managers.PreservationPolicy:
        last = managers.LatestN(checkpoint.keep_last)
        best = managers.BestN(
            get_metric_fn=self._metric,
            n=checkpoint.keep_best,  # 0: none
            keep_checkpoints_without_metrics=False,
        )
        return managers.AnyPreservationPolicy([last, best])

    def _metric(self, metrics: Mapping[str, float]) -> float:
        # The smaller a loss the better.
        return -metrics[self.metric] if self.metric.endswith("loss") else metrics[self.metric]


def write_run(workdir: str | os.PathLike[str], config: Config, card: Card) -> None:
    """Writes config.json and model.json, each whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    folder = epath.Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "model.json", json.dumps(dataclasses.asdict(card), indent=2) + "\n")
        _write(folder / "config.json", config_lib.to_json(config))
    except OSError as error:
        raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error


def write_card(workdir: str | os.PathLike[str], card: Card) -> None:
    """Writes model.json anew. Raises ValueError where `workdir` cannot be written to."""
    write_json(workdir, "model.json", dataclasses.asdict(card))


def write_json(workdir: str | os.PathLike[str], name: str, content: Mapping[str, Any]) -> None:
    """Writes a file of JSON into the folder of a run, whole or not at all.

    Raises ValueError where `workdir` cannot be written to.
    """
    try:
        _write(epath.Path(workdir) / name, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ValueError(f"cannot write to the workdir {workdir}: {error}") from error


def read_json(workdir: str | os.PathLike[str], name: str) -> Any:
    """What such a file holds; None where there is none. Raises ValueError where it is damaged."""
    return _read(workdir, name) if (epath.Path(workdir) / name).exists() else None


def read_card(workdir: str | os.PathLike[str]) -> Card:
    """The model of a run. Raises ValueError where there is none."""
    card = config_lib.build(Card, _read(workdir, "model.json"), "model.json")
    classes, names = card.options.num_classes, len(card.class_names)
    if names not in (0, classes):
        raise ValueError(
            f"{workdir}/model.json is damaged: it names {names} of the model's {classes} classes"
        )
    if card.preprocessing.image_size != card.options.image_size:
        raise ValueError(
            f"{workdir}/model.json is damaged: its images are of {card.preprocessing.image_size},"
            f" its model is for {card.options.image_size}"
        )
    return card


def read_config(workdir: str | os.PathLike[str]) -> Config:
    """The config of a run. Raises ValueError where there is none."""
    return config_lib.resolve(_read(workdir, "config.json"))


def check_same_run(workdir: str | os.PathLike[str], config: Config) -> None:
    """Raises ValueError if `workdir` holds a run of another config, naming what differs."""
    if not (epath.Path(workdir) / "config.json").exists():
        return
    there, here = (_flat(dataclasses.asdict(c)) for c in (read_config(workdir), config))
    differing = [
        f"{path} is {there[path]!r} there and {here[path]!r} here"
        for path in there
        if there[path] != here[path]
        and not any(path == o or path.startswith(o + ".") for o in RUN_OPTIONS)
    ]
    if differing:
        raise ValueError(
            f"{workdir} holds a run of another config ({'; '.join(differing)}):"
            " use another --workdir, or the same config to resume"
        )


def _items(state: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and their average apart, so that they can be restored alone."""
    items = {name: state[name] for name in ("params", "ema") if name in state}
    rest = {name: tree for name, tree in state.items() if name not in items}
    return items | ({"rest": rest} if rest else {})


def _read(workdir: str | os.PathLike[str], name: str) -> Any:
    path = epath.Path(workdir) / name
    if not path.exists():
        raise ValueError(f"{workdir} is no run: it has no {name}")
    try:
        return plain_json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}: restore it, or start anew") from error


def _write(path: epath.Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def saved_steps(workdir: str | os.PathLike[str]) -> list[int]:
    """Steps with a finished checkpoint; [] where there is no run."""
    folder = epath.Path(workdir) / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(folder)) if folder.exists() else []


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the folder of a run of ours."""
    return (epath.Path(path) / "model.json").exists()


def local_shapes(shapes: Any) -> Any:
    """`shapes`, all of them on the first device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes)
