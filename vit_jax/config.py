"""The schema of a run: every field, its default and its meaning.

A recipe (`configs/*.py`) fills an `ml_collections.ConfigDict` made by `default_config()`.
`resolve()` checks it and turns it into the frozen, typed `Config` that the program uses. Each
optimizer, source or other choice is a dataclass beside the code that it configures. In a config its
fields stand beside its name; a field of a choice that is not selected is an error.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections
import numpy as np

from vit_jax import config_formats, schema
from vit_jax.checkpoints.options import CheckpointConfig as CheckpointConfig
from vit_jax.data.augment import AUGMENTATIONS, AnyAugmentation, Flip, Mix, Mixup, ValueRange
from vit_jax.data.options import DataConfig as DataConfig
from vit_jax.duration import Duration as Duration
from vit_jax.evaluators import EVALUATORS, HELD_OUT, Evaluator, HeldOut
from vit_jax.models import zoo
from vit_jax.objectives import OBJECTIVES, Direction, Objective
from vit_jax.objectives.classification import Classification as Classification
from vit_jax.parallel import compiler
from vit_jax.parallel.mesh import MeshConfig as MeshConfig
from vit_jax.training.model_config import ModelConfig as ModelConfig
from vit_jax.training.optimizer import OptimizerConfig as OptimizerConfig
from vit_jax.training.schedules import ScheduleConfig as ScheduleConfig
from vit_jax.training.tuning import TUNINGS, Tuning
from vit_jax.training.writers import WRITERS, Writer

_LOG = logging.getLogger(__name__)


def default_config() -> ml_collections.ConfigDict:
    """The config that a recipe starts from: shared fields at their defaults, and names of choices.

    It lacks the fields of choices and the units of durations; a recipe adds those that it sets.
    `resolve` checks the types, of these fields and of all others.
    """
    return ml_collections.ConfigDict(schema.unset(Config), type_safe=False)


def resolve(config: Mapping[str, Any] | ml_collections.ConfigDict) -> "Config":
    """Checks a config against the schema and freezes it.

    Raises ValueError that names the field, its value and the remedy for an unknown field, a wrong
    type, a value that is not allowed, and fields that contradict each other.
    """
    values, renamed = config_formats.with_new_names(plain_fields(config))
    values, named = config_formats.with_zoo_name(values)
    resolved = of_values(values)
    for note in (*renamed, *named):
        _LOG.warning("note: %s", note)
    return resolved


def plain_fields(config: Mapping[str, Any] | ml_collections.ConfigDict) -> dict[str, Any]:
    """A config as plain mappings and tuples."""
    return {key: _plain(value) for key, value in config.items()}


def of_values(values: Mapping[str, Any]) -> "Config":
    """As `resolve`, for fields under their current names."""
    try:
        resolved: Config = schema.build(Config, values, "config")
    except ValueError as error:
        if reason := _first_reason(values):
            raise reason from error
        raise
    _check(resolved)
    sides = resolved.image_size  # one number is a square, also where two configs are compared
    return dataclasses.replace(resolved, image_size=(sides[0], sides[-1]))


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
    """The content of config.json; `of_fields` makes an equal `Config` of it."""
    return {"format": config_formats.FORMAT, **schema.plain(config)}


def of_fields(fields: Mapping[str, Any]) -> "Config":
    """The config in a config.json of this version or an earlier one.

    Raises ValueError if it is damaged.
    """
    return of_values(config_formats.of_file(Config, plain_fields(fields)))


def optimization_of(fields: Mapping[str, Any]) -> "Optimization":
    """The part of a config.json, whose other fields may be those of another version."""
    values = config_formats.of_file(Config, plain_fields(fields))
    part = {name: values.get(name, {}) for name in ("optimizer", "tune")}
    found: Optimization = schema.build(Optimization, part, "config")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping | ml_collections.ConfigDict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimization:
    """The part of a config that says what the state of the optimizer is."""

    tune: Tuning = schema.group(TUNINGS, "full", key="kind")  # which parts of the model train
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A run."""

    seed: int = 0  # seed of the initial values, the order of examples and all random numbers
    init_from: str = ""  # run or released file to start from
    # Start from the parameters of `init_from`, or from its whole state: optimizer and average too.
    init_state: Literal["parameters", "all"] = "parameters"
    init_layout: str = ""  # layout of the file `init_from`; unset: recognised from its keys
    init_grid: tuple[int, ...] = ()  # (rows, columns) of `init_from`'s positions if not square
    # Interpolation of the positions of `init_from` to another grid; unset: as its family does.
    init_resize: str = ""
    # How the classes of `init_from` are matched with those of the data.
    init_head: Literal["by_name", "by_number"] = "by_name"
    # For another `model.channels`, sum or repeat the first kernel of `init_from`, as timm does.
    init_adapt_channels: bool = False
    needs_init: bool = False  # a recipe that fine-tunes: refuse to train without `init_from`
    image_size: tuple[int, ...] = (224, 224)  # (height, width) in pixels; one number: square
    # Pairs (share of the run, height): before this share, training images are smaller, with this
    # height and a width in proportion; after the last share they are `image_size`.
    progressive: tuple[tuple[float, int], ...] = ()
    batch_size: int = 256  # images per step, over all devices and processes
    total: Duration = Duration(epochs=90.0)  # length of the run; it may grow when a run is resumed
    # Period of the evaluations; 0: only at the end.
    evaluate_every: Duration = Duration(percent=10.0)
    eval_batch_size: int = 0  # images per step of an evaluation, over all devices; 0: `batch_size`
    log_every: Duration = Duration(steps=50)  # period of the lines in metrics.jsonl
    # Other places for the metrics, besides metrics.jsonl and TensorBoard: csv, wandb.
    writers: tuple[Writer, ...] = schema.listed(WRITERS, ())
    report: bool = True  # write the page report.html at the end, if vit_jax[report] is installed
    ema: float = 0.0  # decay of the Polyak average of the parameters; 0: no average
    # p: after n updates the decay is at most 1 - (1 + n) ** -p (timm: 2/3); 0: no warm-up.
    ema_warmup: float = 0.0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    # Augmentations of training images, in this order: first on the host, then on the device.
    augment: tuple[AnyAugmentation, ...] = schema.listed(AUGMENTATIONS, (Flip(), ValueRange()))
    # How the model is measured. The metrics of an evaluator are NAME/METRIC.
    evaluators: Mapping[str, Evaluator] = schema.named(EVALUATORS, {HELD_OUT: HeldOut()})
    objective: Objective = schema.group(OBJECTIVES, "classification")  # what training minimises
    tune: Tuning = schema.group(TUNINGS, "full", key="kind")  # which parts of the model train
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    # NAME=VALUE for each option of XLA that the training step is compiled with. They are added to
    # those of the platform, which are shown when a run starts, or replace them.
    compiler_options: tuple[str, ...] = ()


# Larger numbers are mistakes; no possible run reaches these limits.
_MOST_OF_DURATION = {"steps": 2**31 - 1, "epochs": 1e9, "examples": 2**53, "percent": 1e6}
_MOST = {
    **{"batch_size": 2**20, "eval_batch_size": 2**20, "optimizer.accumulate": 2**20},
    **{"data.threads": 2**10, "data.prefetch": 2**10, "model.unroll": 2**12},
    "data.max_bad": 1,
    **{"checkpoint.keep_last": 2**31 - 1, "checkpoint.keep_best": 2**31 - 1},
}


def _check(config: Config) -> None:
    """Raises ValueError for values and combinations that the types allow but no run can have."""
    _check_durations(config)
    _check_bounds(config)
    _check_channels(config)
    compiler.check(config.compiler_options)
    if len(config.image_size) not in (1, 2) or min(config.image_size) < 1:
        raise ValueError(f"config.image_size is {config.image_size}: give (height, width)")
    shares = [share for share, _ in config.progressive]
    if any(not 0 < share < 1 for share in shares) or shares != sorted(set(shares)):
        raise ValueError(
            f"config.progressive is {config.progressive}: give pairs (share of the run, height)"
            " with growing shares between 0 and 1"
        )
    if any(height < 1 for _, height in config.progressive):
        raise ValueError(f"config.progressive is {config.progressive}: heights must be positive")
    if len(config.init_grid) not in (0, 2) or min(config.init_grid, default=1) < 1:
        raise ValueError(f"config.init_grid is {config.init_grid}: give (rows, columns)")
    if config.batch_size % config.optimizer.accumulate:
        raise ValueError(
            f"config.batch_size {config.batch_size} does not divide into"
            f" config.optimizer.accumulate {config.optimizer.accumulate} micro-batches"
        )
    if config.data.repeats > 1 and any(isinstance(a, Mixup) for a in config.augment):
        raise ValueError(
            f"config.data.repeats is {config.data.repeats}, and mixup mixes neighbours in the"
            " batch, which are copies of one image then: use the augmentation mix instead, which"
            " mixes with the reversed batch"
        )
    if config.batch_size == 1 and any(isinstance(a, Mix | Mixup) for a in config.augment):
        raise ValueError(
            "config.batch_size is 1, and mix or mixup of config.augment mix the images of a batch:"
            " leave them out"
        )
    if config.ema_warmup and not config.ema:
        raise ValueError(
            f"config.ema_warmup is {config.ema_warmup}, and there is no average: set config.ema"
        )
    _check_metric(config)
    if config.init_state == "all" and not config.init_from:
        raise ValueError("config.init_state is 'all': name the run to start from, config.init_from")
    _check_finite(config)
    if not config.model.name and not config.init_from:
        raise ValueError("config.model.name is empty: name a model, or set config.init_from")


def _check_metric(config: Config) -> None:
    """Raises ValueError if the run does not have the metric of the best checkpoint."""
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
            f"config.checkpoint.metric is {name!r}, but the run has no average:"
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
    """The metric that chooses the best checkpoint, by its name in evaluations, and its direction.

    If it is unset, it is the first metric of the evaluator `held_out`, or of the first evaluator if
    there is no `held_out`.
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
        for field, most in _MOST_OF_DURATION.items():
            if (value := getattr(duration, field)) > most:
                raise ValueError(f"{path}.{field} is {value}: it must be at most {most}")
        if units and math.isnan(getattr(duration, units[0])):
            raise ValueError(f"{path}.{units[0]} is nan: it must be finite")
    if not any(dataclasses.astuple(config.total)) or config.total.percent:
        raise ValueError("config.total needs steps, epochs or examples")


def _check_bounds(config: Config) -> None:
    positive = (
        *("batch_size", "optimizer.accumulate", "optimizer.learning_rate"),
        *("checkpoint.keep_last", "data.threads", "data.prefetch", "data.repeats"),
    )
    for path in positive:
        if not _get(config, path) > 0:  # NaN is not
            raise ValueError(f"config.{path} is {_get(config, path)}: it must be positive")
    for path, most in _MOST.items():
        if (value := _get(config, path)) > most:
            raise ValueError(f"config.{path} is {value}: it must be at most {most}")
    unset_or_positive = (
        *("eval_batch_size", "checkpoint.keep_best", "data.max_bad", "ema_warmup"),
        *("optimizer.rate_batch", "model.unroll"),
    )
    for path in unset_or_positive:
        if not _get(config, path) >= 0:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must not be negative")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed is {config.seed}: it must be in [0, 2**32)")
    for path in ("model.dropout", "model.attention_dropout", "model.drop_path", "ema"):
        if not 0 <= _get(config, path) < 1:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must be in [0, 1)")


def _check_channels(config: Config) -> None:
    """Raises ValueError unless mean and std have a number for each channel."""
    unknown = 0  # until the file is read
    channels = config.model.get("channels") or (unknown if config.init_from else 3)
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
