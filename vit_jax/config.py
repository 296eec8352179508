"""The schema of a run: every field, its default and its meaning.

A recipe (`configs/*.py`) fills an `ml_collections.ConfigDict` made by `default_config()`;
`resolve()` turns it into the frozen, typed `Config` the program works with, and refuses what the
schema does not know. Unset is always the zero of the type (`0`, `0.0`, `""`, `()`), never None,
so that every field can be set and unset from the command line.
"""

import dataclasses
import json
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from vit_jax.models.preprocessing import LEAST_CROP as LEAST_CROP
from vit_jax.models.preprocessing import Fit as Fit
from vit_jax.models.preprocessing import Kernel as Kernel
from vit_jax.schema import build as build
from vit_jax.schema import nearest as nearest


def default_config() -> ml_collections.ConfigDict:
    """The default of every field, to be changed by a recipe; `resolve` refuses new keys."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()))


def resolve(config: Mapping[str, Any] | ml_collections.ConfigDict) -> "Config":
    """Checks a config against the schema and freezes it.

    Raises ValueError that names the field, its value and the remedy: unknown field, wrong type,
    value outside the allowed ones, or fields that contradict each other.
    """
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    resolved = build(Config, config, "config")
    _check(resolved)
    return resolved


def to_json(config: "Config") -> str:
    """The text saved with a run; `resolve` makes an equal `Config` of what it holds."""
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + "\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration:
    """A number of steps, given in any one unit; all zero means none."""

    steps: int = 0
    epochs: float = 0.0  # passes over the training split
    examples: int = 0
    percent: float = 0.0  # of the whole run

    def to_steps(self, *, batch_size: int, dataset_size: int, total_steps: int = 0) -> int:
        """Rounds to whole steps. `total_steps` gives `percent` its meaning."""
        if self.epochs:
            return round(self.epochs * dataset_size / batch_size)
        if self.examples:
            return round(self.examples / batch_size)
        if self.percent:
            return round(self.percent / 100 * total_steps)
        return self.steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What to build. Unset sizes are those of the zoo's entry `name`, or of `init_from`."""

    name: str = ""  # "B/16", "R50+B/16", ...; unset: the model of `init_from`
    width: int = 0  # token width D
    depth: int = 0  # number of blocks
    mlp_dim: int = 0
    num_heads: int = 0
    patch_size: tuple[int, ...] = ()  # (height, width) in pixels
    channels: int = 0  # of the images: 1 is grey, 3 RGB; unset: 3, or those of `init_from`
    pool: Literal["", "token", "gap", "map"] = ""  # unset: token
    representation_size: int = 0  # width of the tanh pre-logits layer; 0: none
    position: Literal["", "none", "learned_1d", "learned_2d", "relative", "sincos2d"] = ""
    position_at: Literal["", "input", "every_block", "every_block_shared"] = ""  # paper, D.4
    dropout: float = 0.0  # after every dense layer except qkv, and after the positions
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0  # drop rate of the last block, growing linearly from 0
    head_bias: float = 0.0  # initial bias of the head; -10 with sigmoid on ImageNet-21k
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters: float32
    attention: Literal["auto", "xla", "cudnn"] = "auto"  # jax.nn.dot_product_attention
    remat: Literal["none", "dots", "full"] = "dots"  # recomputed backward: nothing, all but dense
    unroll: int = 1  # blocks per step of the scan over depth


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and what happens to them."""

    source: Literal["embedded", "image_folder", "tfds"] = "embedded"
    name: str = ""  # tfds: dataset name, such as "imagenet2012:5.1.0"
    path: str = ""  # image_folder: its root; tfds: its data_dir (unset: the tfds default)
    train_split: str = "train"  # tfds: sub-splits such as "train[:99%]" too
    # Unset: the first labelled split that is called validation, val, valid, dev, ..., or test.
    eval_split: str = ""
    crop: Literal["inception", "shift", "center"] = "inception"  # of training images, on the host
    crop_area: tuple[float, float] = (0.05, 1.0)  # inception: share of the image's area
    shift: int = 0  # shift: largest displacement in pixels, borders filled with black
    kernel: Literal["linear", "bilinear_antialias", "bicubic_antialias"] = "linear"  # training
    eval_kernel: Kernel = "area"
    # Evaluation: squash ignores the aspect ratio, crop_floor cuts as Hugging Face.
    eval_fit: Fit = "crop"
    eval_crop: float = 0.875  # evaluation: centre crop of this share of the short side
    # Turn images as their EXIF orientation says; off, as other trainers read them.
    orientation: bool = False
    flip: bool = True  # left-right, on the device
    mixup: float = 0.0  # alpha of the Beta distribution; 0: off
    mean: tuple[float, ...] = ()  # of the pixels in [0, 1]; unset: as `init_from`, else the zoo's
    std: tuple[float, ...] = ()  # likewise; 0.5 and 0.5 give values in [-1, 1]
    # Go on with a run though its images or classes are others than when it began; see data.json.
    accept_changes: bool = False
    max_bad: float = 0.001  # share of unreadable images above which a run stops
    threads: int = 8  # decoding threads of a process
    prefetch: int = 2  # batches prepared ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised."""

    loss: Literal["softmax", "sigmoid"] = "softmax"  # cross-entropy
    label_smoothing: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters move. Paths are those of the model, such as `blocks/mlp/fc1/kernel`."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3  # peak
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    moment_dtype: Literal["float32", "bfloat16"] = "float32"  # first moment, or sgd momentum
    weight_decay: float = 0.0  # adamw: times the scheduled rate; sgd: part of the gradient
    decay_mask: tuple[str, ...] = ("kernel$",)  # regular expressions of the decayed paths
    frozen: tuple[str, ...] = ()  # regular expressions of the paths that do not train
    clip_norm: float = 1.0  # largest global gradient norm; 0: no clipping
    accumulate: int = 1  # micro-batches a step; the batch size stays the same


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over the run: linear warm-up, then the decay."""

    decay: Literal["cosine", "linear", "rsqrt", "constant"] = "cosine"
    warmup: Duration = Duration()
    end: float = 0.0  # learning rate at the end of cosine and linear
    timescale: Duration = Duration(steps=10_000)  # rsqrt
    cooldown: Duration = Duration()  # linear to zero at the end of the run, on top of the decay


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept of a run."""

    every: Duration = Duration(percent=10.0)
    keep_last: int = 2
    keep_best: int = 1  # by `metric`, besides the last ones
    # Of the evaluation; `ema_`: of the averaged parameters.
    metric: Literal["top1", "top5", "loss", "ema_top1", "ema_top5", "ema_loss"] = "top1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each axis; -1 (one axis at most) takes what is left."""

    data: int = -1  # batch split, parameters replicated
    fsdp: int = 1  # batch split, parameters and optimizer state split too
    tensor: int = 1  # heads and MLP columns split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A run."""

    seed: int = 0
    init_from: str = ""  # a run of ours or a released file to start from
    init_state: Literal["parameters", "all"] = "parameters"  # all: its optimizer and average too
    init_layout: str = ""  # layout of a released file; unset: recognised from its keys
    init_grid: tuple[int, ...] = ()  # (rows, columns) of its positions where they are not square
    init_resize: str = ""  # how its positions are interpolated; unset: as its family does
    init_head: Literal["by_name", "by_number"] = "by_name"  # how its classes are matched with ours
    # Whether its first kernel may be summed or repeated for other `model.channels`, as timm does.
    init_adapt_channels: bool = False
    image_size: tuple[int, ...] = (224, 224)  # (height, width); one number: square
    batch_size: int = 256  # global: over all devices and hosts
    total: Duration = Duration(epochs=90.0)  # length of the run; may grow when it is resumed
    evaluate_every: Duration = Duration(percent=10.0)
    eval_batch_size: int = 0  # global; unset: `batch_size`
    log_every: Duration = Duration(steps=50)
    ema: float = 0.0  # decay of the Polyak average of the parameters; 0: none
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()


def check_override(path: str) -> None:
    """Raises ValueError if `path`, such as `optimizer.learning_rate`, is no field."""
    kind: Any = Config
    done = "config"
    for part in path.split("."):
        fields = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
        if part not in fields:
            raise ValueError(f"unknown config field {done}.{part}: {nearest(part, fields)}")
        kind, done = fields[part], f"{done}.{part}"


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
    if config.checkpoint.metric.startswith("ema_") and not config.ema:
        raise ValueError(
            f"config.checkpoint.metric is {config.checkpoint.metric!r}, but nothing is averaged:"
            " set config.ema, or choose another metric"
        )
    if config.init_state == "all" and not config.init_from:
        raise ValueError("config.init_state is 'all': name the run to start from, config.init_from")
    _check_finite(config, "config")
    if not config.model.name and not config.init_from:
        raise ValueError("config.model.name is empty: name a model, or set config.init_from")


def _check_durations(config: Config) -> None:
    for name, duration in _durations(config):
        units = [f.name for f in dataclasses.fields(duration) if getattr(duration, f.name)]
        if len(units) > 1:
            raise ValueError(
                f"config.{name} is given in {' and '.join(units)}: keep one, set the others to 0"
            )
        if units and getattr(duration, units[0]) < 0:
            raise ValueError(f"config.{name}.{units[0]} is negative")
        for field, most in _MOST_OF_DURATION.items():
            if (value := getattr(duration, field)) > most:
                raise ValueError(f"config.{name}.{field} is {value}: it must be at most {most}")
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
    unset_or_positive = ("eval_batch_size", "checkpoint.keep_best", "data.mixup", "data.max_bad")
    for path in unset_or_positive:
        if not _get(config, path) >= 0:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must not be negative")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed is {config.seed}: it must be in [0, 2**32)")
    unit = (
        *("model.dropout", "model.attention_dropout", "model.stochastic_depth"),
        *("ema", "objective.label_smoothing"),
    )
    for path in unit:
        if not 0 <= _get(config, path) < 1:
            raise ValueError(f"config.{path} is {_get(config, path)}: it must be in [0, 1)")


def _check_channels(config: Config) -> None:
    """Mean and std are a number for each channel."""
    channels = config.model.channels or (0 if config.init_from else 3)  # 0: told by the file
    if channels and not {len(config.data.mean), len(config.data.std)} <= {0, channels}:
        number = "three numbers" if channels == 3 else f"{channels} for the model's channels"
        raise ValueError(
            f"config.data.mean is {config.data.mean} and std {config.data.std}:"
            f" give {number} each, or none"
        )
    if not all(value > 0 for value in config.data.std):
        raise ValueError(f"config.data.std is {config.data.std}: it must be positive")


def _check_finite(value: Any, path: str) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_finite(getattr(value, field.name), f"{path}.{field.name}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{path} is {value}: it must be finite")


def _durations(config: Any, prefix: str = "") -> list[tuple[str, Duration]]:
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Duration):
            found.append((prefix + field.name, value))
        elif dataclasses.is_dataclass(value):
            found += _durations(value, f"{prefix}{field.name}.")
    return found


def _get(config: Config, path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = getattr(value, part)
    return value
