"""A model for images of another size, with the same parameters, made in memory."""

import dataclasses
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from vit_jax.models import zoo
from vit_jax.models.model import Model

AnyModel = TypeVar("AnyModel", bound=Model)


def resized(model: AnyModel, image_size: tuple[int, int]) -> AnyModel:
    """See `Model.resized`."""
    source = model.options
    target = zoo.change(source, image_size=image_size)
    rules = zoo.family(source).fitting
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep="/")
    params = rules.realigned({k: np.asarray(v) for k, v in state.items()}, source, target)
    fitted = {
        path: jnp.asarray(change(array, source, target, model.resize_methods), jnp.float32)
        if (change := rules.resize(path))
        else state.get(path, array)
        for path, array in params.items()
    }
    graphdef, _ = zoo.abstract(target)
    found: AnyModel = nnx.merge(graphdef, traverse_util.unflatten_dict(fitted, sep="/"))
    if expects := model.preprocessing:
        found.preprocessing = dataclasses.replace(expects, image_size=target.image_size)
    found.class_names, found.resize_methods = model.class_names, model.resize_methods
    found.step, found.cross_entropy = model.step, model.cross_entropy
    return found
