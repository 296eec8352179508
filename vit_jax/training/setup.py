"""From a config to parts of a run: its lengths, its model, and the parameters it starts from."""

import dataclasses
from collections.abc import Mapping

import jax
import optax
from jax.sharding import Mesh

from vit_jax import schema
from vit_jax.checkpoints import classes, load, run_folder, surgery
from vit_jax.config import Config, Duration, best_metric
from vit_jax.data import augment
from vit_jax.data.record import DataFacts
from vit_jax.evaluators import HELD_OUT
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.classification import Classification
from vit_jax.text import printable
from vit_jax.training import compute, optimizer, schedules


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """The durations of a config in steps; a period of 0 means never."""

    total: int
    evaluate_every: Mapping[str, int]  # by the name of the evaluator
    checkpoint_every: int
    log_every: int


def lengths(config: Config, *, dataset_size: int) -> Lengths:
    """The lengths of a run. Raises ValueError if it has no step."""
    units = {"batch_size": config.batch_size, "dataset_size": dataset_size}
    total = config.total.to_steps(**units)
    if total < 1:
        raise ValueError(
            f"config.total is less than one step of batch size {config.batch_size} over"
            f" {dataset_size} training images: make it longer, or the batch smaller"
        )
    if total >= 2**31:
        raise ValueError(f"config.total is {total} steps: it must be less than 2**31")

    def every(duration: Duration) -> int:
        steps = duration.to_steps(**units, total_steps=total)
        return max(steps, 1) if _given(duration) else 0

    return Lengths(
        total=total,
        evaluate_every={
            name: every(evaluator.every if _given(evaluator.every) else config.evaluate_every)
            for name, evaluator in config.evaluators.items()
        },
        checkpoint_every=every(config.checkpoint.every),
        log_every=every(config.log_every),
    )


def described(lengths: Lengths, config: Config, *, images: int) -> str:
    """`600 steps (5 epochs); evaluation every 120, checkpoint every 100, line of metrics every 50`.

    `images` is the number of training images.
    """
    total = lengths.total
    periods = {
        "evaluation" if name == HELD_OUT else f"evaluation by {name}": every
        for name, every in lengths.evaluate_every.items()
    }
    periods |= {"checkpoint": lengths.checkpoint_every, "line of metrics": lengths.log_every}
    shown = (
        f"{what} every {every:,}" if 0 < every < total else f"{what} at the end"
        for what, every in periods.items()
    )
    epochs = total * config.batch_size / images
    return f"{total:,} steps ({epochs:.4g} epochs); {', '.join(shown)}"


def _given(duration: Duration) -> bool:
    return any(dataclasses.astuple(duration))


def schedule(config: Config, *, dataset_size: int) -> optax.Schedule:
    """The learning rate as a function of the step. Raises ValueError if it does not fit the run."""
    return schedules.make_schedule(
        config.schedule,
        peak=optimizer.peak_rate(config.optimizer, batch_size=config.batch_size)[0],
        total_steps=lengths(config, dataset_size=dataset_size).total,
        batch_size=config.batch_size,
        dataset_size=dataset_size,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The model that a run starts from."""

    options: zoo.Options
    preprocessing: Preprocessing  # that the parameters were trained with, or that of the zoo
    resize: Methods = Methods()  # how arrays of its family are resized
    params: surgery.Params | None = None  # of `init_from`, fitted to the model
    report: str = ""  # how they were fitted


def zoo_start(config: Config, facts: DataFacts) -> Start:
    """A model of the zoo, as the objective trains it on data with these facts. Pure.

    Raises ValueError for an unknown model, sizes that do not fit, and a model that the objective
    cannot train.
    """
    if config.init_from:
        raise ValueError(f"the model of {config.init_from} is not known before it is read")
    options = _target(zoo.options(config.model.name), config, facts)
    expects = zoo.preprocessing(config.model.name, image_size=options.image_size)
    return Start(
        options=options,
        preprocessing=expects.for_channels(options.channels),
        resize=zoo.resize_methods(config.model.name),
    )


def fresh_start(config: Config, facts: DataFacts) -> Start:
    """The model of a new run, and the parameters of `init_from` fitted to it.

    The head of `init_from` is kept if it has the classes of the run. Classes are compared by name,
    or by number if one side has no names or `init_head` says so. Raises ValueError as `zoo_start`
    does, and for a checkpoint that does not fit.
    """
    if not config.init_from:
        if config.needs_init:
            raise ValueError(
                "config.init_from is empty, and this recipe fine-tunes: name a run or a checkpoint"
                " to start from, or set config.needs_init=false to train from random values"
            )
        if not config.tune.whole:
            raise ValueError(
                "config.tune trains a part of a model and keeps the rest: name the model to start"
                " from, config.init_from"
            )
        _check_unused(config)
        return zoo_start(config, facts)
    source = load.read(
        config.init_from,
        layout=config.init_layout,
        num_heads=0 if run_folder.is_run(config.init_from) else _heads(config),
        grid=_pair(config.init_grid) if config.init_grid else None,
    )
    resize, objective = source.resize.with_position(config.init_resize), config.objective
    name = config.model.name
    base = zoo.options(name) if name else objective.adopted(source.options)
    target = _target(base, config, facts)
    by_number = config.init_head == "by_number"
    match = classes.match(
        () if by_number else source.class_names,
        () if by_number else facts.class_names,
        their_count=source.options.num_classes,
        our_count=target.num_classes,
    )
    params, report = surgery.adapt(
        source.params,
        source=source.options,
        target=target,
        key=jax.random.fold_in(jax.random.key(config.seed), 1),
        resize=resize,
        classes=match,
        adapt_channels=config.init_adapt_channels,
    )
    notes = (f"note: {note}" for note in source.notes)
    return Start(
        options=target,
        preprocessing=source.preprocessing.for_channels(target.channels),
        resize=source.resize,
        params=params,
        report="\n".join((f"from {printable(config.init_from)}: {report}", *notes)),
    )


def _check_unused(config: Config) -> None:
    """Raises ValueError for a field that says how `init_from`, which is empty, is read."""
    for field in ("init_layout", "init_grid", "init_resize", "init_head", "init_adapt_channels"):
        if (value := getattr(config, field)) != getattr(Config, field):
            raise ValueError(
                f"config.{field} is {value!r}, and nothing is read that it could apply to: set"
                " config.init_from, or leave it out"
            )


def resumed_start(config: Config, card: run_folder.Card) -> Start:
    """The model of a run that is resumed; only its compute options may differ from before."""
    known = {f.name for f in dataclasses.fields(card.options)}
    new = {name: config.model.get(name) for name in ("attention", "remat", "unroll")}
    options = zoo.change(card.options, **{k: v for k, v in new.items() if k in known})
    return Start(options=options, preprocessing=card.preprocessing, resize=card.resize)


def with_value_range(config: Config, preprocessing: Preprocessing) -> Config:
    """The config with `data.mean` and `data.std` set; unset, they come from `preprocessing`.

    Raises ValueError unless both have a number for each channel.
    """
    data = dataclasses.replace(
        config.data,
        mean=config.data.mean or preprocessing.mean,
        std=config.data.std or preprocessing.std,
    )
    number = len(preprocessing.mean)
    if not len(data.mean) == len(data.std) == number:
        raise ValueError(
            f"config.data.mean is {data.mean} and std {data.std}: the model has"
            f" {number} channels, give a number for each, or none"
        )
    return dataclasses.replace(config, data=data)


def augmentations(config: Config) -> tuple[augment.Augmentation, ...]:
    """The augmentations of training images on the device, in order."""
    data = config.data
    device = augment.on_device(config.augment)
    return tuple(kind.bound(mean=data.mean, std=data.std) for kind in device)


def host_augmentations(config: Config) -> tuple[augment.HostAugmentation, ...]:
    """The augmentations of training images on the host, in order.

    Raises ValueError if a field does not fit the channels of the model.
    """
    data = config.data
    host = augment.on_host(config.augment)
    return tuple(kind.bound(mean=data.mean, std=data.std) for kind in host)


def make_card(config: Config, start: Start, class_names: tuple[str, ...]) -> run_folder.Card:
    """The content of model.json; `config` comes from `with_value_range`."""
    preprocessing = Preprocessing(
        image_size=start.options.image_size,
        crop_pct=config.data.crop_pct,
        interpolation=config.data.eval_interpolation,
        fit=config.data.eval_fit,
        mean=config.data.mean,
        std=config.data.std,
    )
    metric, better = best_metric(config) or ("", "max")
    objective = config.objective
    return run_folder.Card(
        options=start.options,
        class_names=class_names if start.options.num_classes else (),
        preprocessing=preprocessing,
        resize=start.resize,
        average=config.ema > 0,
        metric=metric,
        better=better,
        cross_entropy=objective.cross_entropy if isinstance(objective, Classification) else "",
    )


def messages(
    config: Config,
    options: zoo.Options,
    *,
    parameters: int,
    mesh: Mesh,
    lengths: Lengths,
    images: int,
    step: int,
    notes: tuple[str, ...],
) -> tuple[str, ...]:
    """The lines that are printed when a run starts; empty `notes` are left out."""
    height, width = options.image_size
    classes = f", {options.num_classes} classes" if options.num_classes else ""
    tokens = f", {options.tokens} tokens" if options.tokens else ""
    name = config.model.name or f"model of {config.init_from}"
    model = f"{name}, {parameters:,} parameters{classes}, images {height}x{width}{tokens}"
    axes = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    where = (
        f"{images:,} training images, batch {config.batch_size},"
        f" {mesh.size} {mesh.devices.flat[0].platform} devices ({axes}),"
        f" {jax.process_count()} processes"
    )
    _, rate = optimizer.peak_rate(config.optimizer, batch_size=config.batch_size)
    cut = ""
    if config.batch_size % config.data.repeats:
        cut = (
            f"warning: config.data.repeats {config.data.repeats} does not divide batches of"
            f" {config.batch_size}: one image of each batch has the rest of its copies in the next"
        )
    resumed = f"resumed after step {step}" if step else ""
    length = described(lengths, config, images=images)
    lines = (model, where, length, compute.described(options), rate, cut, *notes, resumed)
    return tuple(line for line in lines if line)


def image_size(config: Config) -> tuple[int, int]:
    return _pair(config.image_size)


def _target(base: zoo.Options, config: Config, facts: DataFacts) -> zoo.Options:
    """The model that the objective trains, with the fields that the config sets.

    Raises ValueError for a field that the model does not have, or fields that do not fit together.
    """
    try:
        changed = config.model.change(base, image_size=image_size(config))
        target = config.model.finish(config.objective.model(changed, facts), base)
    except ValueError as error:
        if not str(error).startswith("image"):  # their size is no field of config.model
            schema.add_path(error, "config.model", type(base))
        raise
    return config.tune.model(target)


def _heads(config: Config) -> int:
    """`config.model.num_heads` for a file that lacks it; 0: unset, or a number for each stage."""
    heads = config.model.get("num_heads")
    return heads if isinstance(heads, int) else 0


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    return (sides[0], sides[-1])
