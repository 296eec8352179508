"""The step of a run whose trained layers read features that were computed once: see `cached`.

Shapes: B examples of a batch, H heads, D features.
"""

import dataclasses

import jax
import jax.numpy as jnp

from vit_jax.config import Config
from vit_jax.data import featured
from vit_jax.data.augment import ValueRange, name_of
from vit_jax.models.model import Model
from vit_jax.models.zoo import Options
from vit_jax.objectives import Batch, Frozen, Loss, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnFeatures:
    """The loss of an objective, of features (B, H, D) instead of images."""

    objective: Objective

    def loss(self, model: Model, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        # The model that the objective calls is the part that reads features.
        read = batch | {"image": batch[featured.NAME]}
        return self.objective.loss(model.classified, read, key=key, frozen=frozen)


def shapes(options: Options) -> dict[str, jax.ShapeDtypeStruct]:
    """The array of features of one example, by its name in a batch."""
    return {featured.NAME: jax.ShapeDtypeStruct((options.heads, options.pooled_size), jnp.float32)}


def check(config: Config, options: Options) -> None:
    """Raises ValueError if the features of an image would differ between steps, or are unknown."""
    field, remedy = "config.tune.cached computes features once", "or leave config.tune.cached out"
    changing = [one for one in config.augment if not isinstance(one, ValueRange)]
    if changing:
        raise ValueError(
            f"{field}, but config.augment has {', '.join(map(name_of, changing))}:"
            f" set --config.augment=\"('value_range',)\", {remedy}"
        )
    if config.progressive:
        raise ValueError(f"{field}, but config.progressive changes the images: {remedy}")
    if not config.objective.classifies or config.objective.frozen_models():
        raise ValueError(
            f"{field}, but this config.objective reads more than the features of the model:"
            f" set it to classification, {remedy}"
        )
    if not options.pooled_size:
        raise ValueError(f"{field}, but the pooling of this model trains too: {remedy}")
