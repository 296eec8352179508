"""The schema of a run: every field, its default and its meaning.

A recipe (`configs/*.py`) fills an `ml_collections.ConfigDict` made by `default_config()`;
`resolve()` turns it into the frozen, typed `Config` the program works with, and refuses what the
schema does not know. A choice (of an optimizer, a source, ...) is a dataclass of its own, beside
what it configures: its fields stand beside its name, and are errors where it is not taken.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from vit_jax import config_formats, schema
from vit_jax.checkpoints.store import CheckpointConfig as CheckpointConfig
from vit_jax.data.augment import AUGMENTATIONS, Augmentation, Flip, ValueRange
from vit_jax.data.options import DataConfig as DataConfig
from vit_jax.duration import Duration as Duration
from vit_jax.evaluators import EVALUATORS, HELD_OUT, Evaluator, HeldOut
from vit_jax.models import zoo
from vit_jax.objectives import OBJECTIVES, Direction, Objective
from vit_jax.objectives.classification import Classification as Classification
from vit_jax.parallel.mesh import MeshConfig as MeshConfig
from vit_jax.training.model_config import ModelConfig as ModelConfig
from vit_jax.training.optimizer import OptimizerConfig as OptimizerConfig
from vit_jax.training.schedules import ScheduleConfig as ScheduleConfig

_LOG = logging.getLogger(__name__)


def default_config() -> ml_collections.ConfigDict:
    """What a recipe starts from: shared fields at their defaults, and the names of choices.

    The fields of a choice and the units of a duration are not there: to set one is to add it.
    """
    return ml_collections.ConfigDict(schema.unset(Config))


def resolve(config: Mapping[str, Any] | ml_collections.ConfigDict) -> "Config":
    """Checks a config against the schema and freezes it.

    Raises ValueError that names the field, its value and the remedy: unknown field, wrong type,
    value outside the allowed ones, or fields that contradict each other.
    """
    values, notes = config_formats.with_new_names(plain_fields(config))
    resolved = of_values(values)
    for note in notes:
        _LOG.warning("note: %s", note)
    return resolved


def plain_fields(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """A config as plain mappings and tuples."""
    return {key: _plain(value) for key, value in config.items()}


def of_values(values: Mapping[str, Any]) -> "Config":
    """As `resolve`, of fields under the names of today."""
    try:
        resolved: Config = schema.build(Config, values, "config")
    except ValueError as error:
        raise _first_reason(values) or error from error
    _check(resolved)
    return resolved


def _first_reason(values: Mapping[str, Any]) -> ValueError | None:
    """The error of an objective that cannot train this kind of model, if that is the case.

    It comes before any error of the model's fields, which may belong to another kind.
    """
    try:
        name = values["model"]["name"]
        config: Config = schema.build(Config, {**values, "model": {"name": name}}, "config")
        base = zoo.options(name)
    except (KeyError, TypeError, ValueError):
        return None
    try:
        config.objective.check_kind(base)
    except ValueError as error:
        return error
    return None


def to_fields(config: "Config") -> dict[str, Any]:
    """What config.json holds of a config; `of_fields` makes an equal `Config` of it."""
    return {"format": config_formats.FORMAT, **schema.plain(config)}


def of_fields(fields: Mapping[str, Any]) -> "Config":
    """The config of a run, of this version or an earlier one. Raises ValueError if damaged."""
    return of_values(config_formats.of_file(Config, plain_fields(fields)))


def optimizer_of(fields: Mapping[str, Any]) -> OptimizerConfig:
    """The optimizer of such a config. The other fields may be those of another version."""
    values = config_formats.of_file(Config, plain_fields(fields))
    part = values.get("optimizer", {})
    optimizer: OptimizerConfig = schema.build(OptimizerConfig, part, "config.optimizer")
    return optimizer


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return {key: _plain(item) for key, item in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A run."""

    seed: int = 0  # of initial values, the order of examples and every random number
    init_from: str = ""  # a run of ours or a released file to start from
    # What of `init_from` is taken; all: its optimizer and average too.
    init_state: Literal["parameters", "all"] = "parameters"
    init_layout: str = ""  # layout of a released file; unset: recognised from its keys
    init_grid: tuple[int, ...] = ()  # (rows, columns) of its positions where they are not square
    init_resize: str = ""  # how its positions are interpolated; unset: as its family does
    init_head: Literal["by_name", "by_number"] = "by_name"  # how its classes are matched with ours
    # Whether its first kernel may be summed or repeated for other `model.channels`, as timm does.
    init_adapt_channels: bool = False
    image_size: tuple[int, ...] = (224, 224)  # (height, width) in pixels; one number: square
    batch_size: int = 256  # images of a step, over all devices and hosts
    total: Duration = Duration(epochs=90.0)  # length of the run; may grow when it is resumed
    # How often the held-out split is measured; none: at the end only.
    evaluate_every: Duration = Duration(percent=10.0)
    eval_batch_size: int = 0  # images of an evaluation step, likewise; 0: `batch_size`
    log_every: Duration = Duration(steps=50)  # how often metrics are written
    ema: float = 0.0  # decay of the Polyak average of the parameters; 0: none
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    # What is done to training images on the device, in this order.
    augment: tuple[Augmentation, ...] = schema.listed(AUGMENTATIONS, (Flip(), ValueRange()))
    # How the model is judged, by names of the user's: metrics are called NAME/METRIC.
    evaluators: Mapping[str, Evaluator] = schema.named(EVALUATORS, {HELD_OUT: HeldOut()})
    objective: Objective = schema.group(OBJECTIVES, "classification")  # what is minimised
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()


# Beyond these a number is a mistake: none of them is a limit of a run that can be.
_MOST_OF_DURATION = {"steps": 2**31 - 1, "epochs": 1e9, "examples": 2**53, "percent": 1e6}
_MOST = {
    **{"batch_size": 2**20, "eval_batch_size": 2**20, "optimizer.accumulate": 2**20},
    **{"data.threads": 2**10, "data.prefetch": 2**10, "model.unroll": 2**12},
    **{"checkpoint.keep_last": 2**31 - 1, "checkpoint.keep_best": 2**31 - 1},
}


def _check(config: Config) -> None:
    """What single types cannot say. Raises ValueError."""
    _check_durations(config)
    _check_bounds(config)
    _check_channels(config)
    if len(config.image_size) not in (1, 2) or min(config.image_size) < 1:
        raise ValueError(f"config.image_size is {config.image_size}: give (height, width)")
    if len(config.init_grid) not in (0, 2) or min(config.init_grid, default=1) < 1:
        raise ValueError(f"config.init_grid is {config.init_grid}: give (rows, columns)")
    if config.batch_size % config.optimizer.accumulate:
        raise ValueError(
            f"config.batch_size {config.batch_size} does not divide into"
            f" config.optimizer.accumulate {config.optimizer.accumulate} micro-batches"
        )
    _check_metric(config)
    if config.init_state == "all" and not config.init_from:
        raise ValueError("config.init_state is 'all': name the run to start from, config.init_from")
    _check_finite(config)
    if not config.model.name and not config.init_from:
        raise ValueError("config.model.name is empty: name a model, or set config.init_from")


def _check_metric(config: Config) -> None:
    """The metric by which the best checkpoint is kept is one that the run has."""
    name = config.checkpoint.metric
    if not name:
        return
    evaluator, _, metric = name.rpartition("/")
    evaluator = evaluator or HELD_OUT
    if evaluator not in config.evaluators:
        raise ValueError(
            f"config.checkpoint.metric is {name!r}, but no evaluator is called {evaluator!r}:"
            f" there are {', '.join(config.evaluators) or 'none'}"
        )
    if metric.startswith("ema_") and not config.ema:
        raise ValueError(
            f"config.checkpoint.metric is {name!r}, but nothing is averaged:"
            " set config.ema, or choose another metric"
        )
    known = config.evaluators[evaluator].metrics(config.objective)
    if metric.removeprefix("ema_") not in known:
        prefix = "" if evaluator == HELD_OUT else f"{evaluator}/"
        raise ValueError(
            f"config.checkpoint.metric is {name!r}: choose one of"
            f" {', '.join(prefix + m for m in known)}, or one of these with ema_ before the metric"
        )


def best_metric(config: Config) -> tuple[str, Direction] | None:
    """What chooses the best checkpoint, as evaluations call it, and which way it gets better.

    Unset, it is the first metric of the held-out measure, or else of the first evaluator.
    """
    if not config.evaluators:
        return None
    first = HELD_OUT if HELD_OUT in config.evaluators else next(iter(config.evaluators))
    evaluator, _, metric = config.checkpoint.metric.rpartition("/")
    name = evaluator or (HELD_OUT if metric else first)
    known = config.evaluators[name].metrics(config.objective)
    metric = metric or next(iter(known))
    prefix = "" if name == HELD_OUT else f"{name}/"
    return prefix + metric, known[metric.removeprefix("ema_")]


def _check_durations(config: Config) -> None:
    for path, duration in schema.leaves(config, "config"):
        if not isinstance(duration, Duration):
            continue
        units = [f.name for f in dataclasses.fields(duration) if getattr(duration, f.name)]
        if units and getattr(duration, units[0]) < 0:
            raise ValueError(f"{path}.{units[0]} is negative")
        if units and math.isnan(getattr(duration, units[0])):
            raise ValueError(f"{path}.{units[0]} is nan: it must be finite")
        for field, most in _MOST_OF_DURATION.items():
            if (value := getattr(duration, field)) > most:
                raise ValueError(f"{path}.{field} is {value}: it must be at most {most}")
    if not any(dataclasses.astuple(config.total)) or config.total.percent:
        raise ValueError("config.total needs steps, epochs or examples")


def _check_bounds(config: Config) -> None:
    positive = (
        *("batch_size", "model.unroll", "optimizer.accumulate", "optimizer.learning_rate"),
        *("checkpoint.keep_last", "data.threads", "data.prefetch"),
    )
    for path in positive:
        if not _get(config, path) > 0:  # NaN is not
            raise ValueError(f"config.{path} is {_get(config, path)}: it must be positive")
    for path, most in _MOST.items():
        if (value := _get(config, path)) > most:
            raise ValueError(f"config.{path} is {value}: it must be at most {most}")
    unset_or_positive = ("eval_batch_size", "checkpoint.keep_best", "data.max_bad")
    for path in unset_or_positive:
        if not _get(config, path) >= 0:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must not be negative")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed is {config.seed}: it must be in [0, 2**32)")
    unit = (
        *("model.dropout", "model.attention_dropout", "model.drop_path"),
        "ema",
    )
    for path in unit:
        if not 0 <= _get(config, path) < 1:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must be in [0, 1)")


def _check_channels(config: Config) -> None:
    """Mean and std are a number for each channel."""
    channels = config.model.get("channels") or (0 if config.init_from else 3)  # 0: told by the file
    if channels and not {len(config.data.mean), len(config.data.std)} <= {0, channels}:
        number = "three numbers" if channels == 3 else f"{channels} for the model's channels"
        raise ValueError(
            f"config.data.mean is {config.data.mean} and std {config.data.std}:"
            f" give {number} each, or none"
        )
    if not all(value > 0 for value in config.data.std):
        raise ValueError(f"config.data.std is {config.data.std}: it must be positive")


def _check_finite(config: Config) -> None:
    for path, value in schema.leaves(config, "config"):
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{path} is {value}: it must be finite")


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, ModelConfig) else getattr(value, part)
    return value
