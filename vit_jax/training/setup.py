"""From a config to the parts of a run: model, lengths, and where it starts."""

import dataclasses
from typing import Any

import jax

from vit_jax.checkpoints import load, store, surgery
from vit_jax.config import Config, Duration, ModelConfig
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit import ViTOptions

# Fields of the model config that are the zoo's, or the checkpoint's, where they are not set.
_SIZES = ("width", "depth", "mlp_dim", "num_heads", "pool", "position", "position_at")
_PATCH = "patch_size"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Everything a config gives as a duration, in steps; 0 is never."""

    total: int
    evaluate_every: int
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

    def every(duration: Duration) -> int:
        steps = duration.to_steps(**units, total_steps=total)
        return max(steps, 1) if any(dataclasses.astuple(duration)) else 0

    return Lengths(
        total=total,
        evaluate_every=every(config.evaluate_every),
        checkpoint_every=every(config.checkpoint.every),
        log_every=every(config.log_every),
    )


def fresh_model(
    config: Config, *, num_classes: int
) -> tuple[ViTOptions, surgery.Params | None, str]:
    """The model of a new run, the parameters of `init_from` fitted to it, and what was fitted.

    Raises ValueError for an unknown model, sizes that do not fit, a checkpoint that does not.
    """
    changes = _changes(config, num_classes=num_classes)
    if not config.init_from:
        return zoo.options(config.model.name, **changes), None, ""
    source = load.read(
        config.init_from,
        layout=config.init_layout,
        num_heads=0 if store.is_run(config.init_from) else config.model.num_heads,
    )
    base = zoo.options(config.model.name) if config.model.name else source.options
    target = zoo.change(base, **changes)
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    params, report = surgery.adapt(source.params, source=source.options, target=target, key=key)
    return target, params, f"from {config.init_from}: {report}"


def resumed_model(config: Config, card: store.Card) -> ViTOptions:
    """The model of a run that goes on: what does not change its result may be new."""
    model = config.model
    return zoo.change(
        card.options, attention=model.attention, remat=model.remat, unroll=model.unroll
    )


def make_card(config: Config, options: ViTOptions, class_names: tuple[str, ...]) -> store.Card:
    preprocessing = Preprocessing(
        image_size=options.image_size,
        crop=config.data.eval_crop,
        kernel=config.data.eval_kernel,
        mean=config.data.mean,
        std=config.data.std,
    )
    return store.Card(options=options, class_names=class_names, preprocessing=preprocessing)


def image_size(config: Config) -> tuple[int, int]:
    return _pair(config.image_size)


def _changes(config: Config, *, num_classes: int) -> dict[str, Any]:
    """Fields of `ViTOptions` that the config sets."""
    model = config.model
    changes = {name: getattr(model, name) for name in _SIZES if getattr(model, name)}
    if model.patch_size:
        changes[_PATCH] = _pair(model.patch_size)
    always = {f.name for f in dataclasses.fields(ModelConfig)} - {*_SIZES, _PATCH, "name"}
    changes |= {name: getattr(model, name) for name in always}
    return changes | {"image_size": image_size(config), "num_classes": num_classes}


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    return (sides[0], sides[-1])
