"""The program of an exported model: from uint8 pixels to what the model answers.

Shapes: B images of (H, W) pixels and C channels, K classes, D features.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.checkpoints import save, surgery
from vit_jax.data import augment
from vit_jax.export import weights
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing

Activation = Literal["softmax", "sigmoid"]
Outputs = dict[str, Any]  # "logits" and "probabilities" (B, K), or "features" (B, D); float32


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A model with its normalisation, as a function of weights and images."""

    options: zoo.Options
    preprocessing: Preprocessing
    activation: Activation  # from logits to probabilities
    arrays: dict[str, np.ndarray]  # the weights as they are stored, by path

    def __call__(self, arrays: Mapping[str, Any], images: jax.Array) -> Outputs:
        """The outputs for `images` uint8 (B, H, W, C), normalised here."""
        expects = self.preprocessing
        normal = augment.normalize(images, mean=expects.mean, std=expects.std)
        graphdef, _ = zoo.abstract(self.options)
        nested = traverse_util.unflatten_dict(weights.used(arrays), sep="/")
        found = nnx.merge(graphdef, nested)(normal).astype(np.float32)
        if not self.options.num_classes:
            return {"features": found}
        activate = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[self.activation]
        return {"logits": found, "probabilities": activate(found)}

    def image_shape(self, batch: Any) -> tuple[Any, int, int, int]:
        """The shape of `batch` images."""
        return (batch, *self.preprocessing.image_size, self.options.channels)

    def names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return ("logits", "probabilities") if self.options.num_classes else ("features",)

    def with_weights(self, kind: weights.Kind, *, dtype: str) -> "Program":
        """The same model with its weights stored as `kind`, computed in another dtype."""
        stored = weights.stored(self.arrays, kind=kind)
        return dataclasses.replace(self, options=self.options.changed(dtype=dtype), arrays=stored)


def of_model(model: zoo.Model, *, activation: Activation) -> Program:
    """The program of a model in float32, without parts that only pretraining uses.

    Attention has the form that every platform can compute. Raises ValueError for a model without
    preprocessing.
    """
    if model.preprocessing is None:
        raise ValueError("the model has no preprocessing: set model.preprocessing")
    plain = model.options.classifier().changed(dtype="float32")
    flat = save.params_of(model)
    return Program(
        options=zoo.runnable(plain, platform="cpu"),
        preprocessing=model.preprocessing,
        activation=activation,
        arrays={path: flat[path] for path in surgery.shapes(plain)},
    )
