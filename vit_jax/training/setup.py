"""From a config to the parts of a run: model, lengths, and where it starts."""

import dataclasses
from collections.abc import Mapping

import jax
from jax.sharding import Mesh

from vit_jax.checkpoints import classes, load, run_folder, surgery
from vit_jax.config import Config, Duration, best_metric
from vit_jax.data import augment
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.text import printable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Everything a config gives as a duration, in steps; 0 is never."""

    total: int
    evaluate_every: Mapping[str, int]  # by evaluator
    checkpoint_every: int
    log_every: int


def lengths(config: Config, *, dataset_size: int) -> Lengths:
    """Raises ValueError for a run of no steps."""
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


def _given(duration: Duration) -> bool:
    return any(dataclasses.astuple(duration))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a run begins with."""

    options: zoo.Options
    preprocessing: Preprocessing  # what the parameters were trained with, if there are any
    resize: Methods = Methods()  # of the family they are from
    params: surgery.Params | None = None  # of `init_from`, fitted to the model
    report: str = ""  # what was fitted


def zoo_start(config: Config, facts: DataFacts) -> Start:
    """A freshly initialised model of the zoo, as the objective trains it on such data. Pure.

    Raises ValueError for an unknown model, sizes that do not fit, and a model that the objective
    cannot train.
    """
    if config.init_from:
        raise ValueError(f"the model of {config.init_from} is known only once it is read")
    options = _target(zoo.options(config.model.name), config, facts)
    expects = zoo.preprocessing(config.model.name, image_size=options.image_size)
    return Start(options=options, preprocessing=expects.for_channels(options.channels))


def fresh_start(config: Config, facts: DataFacts) -> Start:
    """The model of a new run, and the parameters of `init_from` fitted to it.

    The head of `init_from` is kept where its classes are those of the run: by name, or by number
    where one of the two has no names, or `init_head` says so. Raises ValueError as `zoo_start`
    does, and for a checkpoint that does not fit.
    """
    if not config.init_from:
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
        facts.class_names,
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


def resumed_start(config: Config, card: run_folder.Card) -> Start:
    """The model of a run that goes on: what does not change its result may be new."""
    known = {f.name for f in dataclasses.fields(card.options)}
    new = {name: config.model.get(name) for name in ("attention", "remat", "unroll")}
    options = zoo.change(card.options, **{k: v for k, v in new.items() if k in known})
    return Start(options=options, preprocessing=card.preprocessing, resize=card.resize)


def with_value_range(config: Config, preprocessing: Preprocessing) -> Config:
    """The config with mean and std of the pixels set: those given, or those of the parameters.

    Raises ValueError unless they are a number for each channel.
    """
    data = dataclasses.replace(
        config.data,
        mean=config.data.mean or preprocessing.mean,
        std=config.data.std or preprocessing.std,
    )
    number = len(preprocessing.mean)
    if not len(data.mean) == len(data.std) == number:
        raise ValueError(
            f"config.data.mean is {data.mean} and std {data.std}: the model takes"
            f" {number} channels, give a number for each, or none"
        )
    return dataclasses.replace(config, data=data)


def augmentations(config: Config) -> tuple[augment.Augmentation, ...]:
    """What is done to training images on the device, in this order."""
    data = config.data
    return tuple(kind.bound(mean=data.mean, std=data.std) for kind in config.augment)


def make_card(config: Config, start: Start, class_names: tuple[str, ...]) -> run_folder.Card:
    """What is saved beside the config; `config` comes from `with_value_range`."""
    preprocessing = Preprocessing(
        image_size=start.options.image_size,
        crop_pct=config.data.crop_pct,
        interpolation=config.data.eval_interpolation,
        fit=config.data.eval_fit,
        mean=config.data.mean,
        std=config.data.std,
    )
    metric, better = best_metric(config) or ("", "max")
    return run_folder.Card(
        options=start.options,
        class_names=class_names if start.options.num_classes else (),
        preprocessing=preprocessing,
        resize=start.resize,
        average=config.ema > 0,
        metric=metric,
        better=better,
    )


def messages(
    config: Config,
    options: zoo.Options,
    *,
    parameters: int,
    mesh: Mesh,
    images: int,
    step: int,
    notes: tuple[str, ...],
) -> tuple[str, ...]:
    """What the user should know when a run starts, in lines."""
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
    resumed = f"resumed after step {step}" if step else ""
    return tuple(line for line in (model, where, *notes, resumed) if line)


def image_size(config: Config) -> tuple[int, int]:
    return _pair(config.image_size)


def _target(base: zoo.Options, config: Config, facts: DataFacts) -> zoo.Options:
    """The model that the objective trains, with what the config sets.

    Raises ValueError for a field that it does not have.
    """
    changed = config.model.change(base, image_size=image_size(config))
    return config.model.finish(config.objective.model(changed, facts), base)


def _heads(config: Config) -> int:
    """The number of heads that a file does not tell; 0: it is not set, or one for each stage."""
    heads = config.model.get("num_heads")
    return heads if isinstance(heads, int) else 0


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    return (sides[0], sides[-1])
