"""The program of an exported model: from uint8 pixels to what the model answers.

Shapes: B images of (H, W) pixels and C channels, K classes, D features.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx, traverse_util
from jax import export

from vit_jax.checkpoints import kernels, save, surgery
from vit_jax.data import augment
from vit_jax.models import attention_choice, zoo
from vit_jax.models.preprocessing import Preprocessing

Activation = Literal["softmax", "sigmoid"]
Outputs = dict[str, Any]  # "logits" and "probabilities" (B, K), or "features" (B, D); float32
OF_SIZE = "@"  # the array "PATH@384x288" is the parameter at PATH of the program for that size


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """A model with its normalisation, as a function of weights and images."""

    options: zoo.Options
    preprocessing: Preprocessing
    activation: Activation  # from logits to probabilities
    arrays: dict[str, np.ndarray]  # the weights as they are stored, by path
    stored: kernels.Kind = "float32"  # how kernels are stored

    def __call__(self, arrays: Mapping[str, Any], images: jax.Array) -> Outputs:
        """The outputs for `images` uint8 (B, H, W, C), normalised here.

        `arrays` may hold parameters of programs for other sizes, which are not used.
        """
        expects = self.preprocessing
        normal = augment.normalize(images, mean=expects.mean, std=expects.std)
        graphdef, _ = zoo.abstract(self.options)
        named = [(*name.partition(OF_SIZE), array) for name, array in arrays.items()]
        own = {path: array for path, _, size, array in named if size in ("", self.size)}
        nested = traverse_util.unflatten_dict(kernels.read(own), sep="/")
        found = nnx.merge(graphdef, nested)(normal).astype(np.float32)
        if not self.options.num_classes:
            return {"features": found}
        activate = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[self.activation]
        return {"logits": found, "probabilities": activate(found)}

    @property
    def size(self) -> str:
        """The size of its images, HEIGHTxWIDTH."""
        return "x".join(map(str, self.preprocessing.image_size))

    @property
    def parameters(self) -> int:
        """The number of parameters of its model."""
        return sum(map(math.prod, surgery.shapes(self.options).values()))

    def image_shape(self, batch: Any) -> tuple[Any, int, int, int]:
        """The shape of `batch` images."""
        return (batch, *self.preprocessing.image_size, self.options.channels)

    def names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return ("logits", "probabilities") if self.options.num_classes else ("features",)

    def with_weights(self, kind: kernels.Kind) -> "Program":
        """The same model with its kernels stored as `kind`.

        In bfloat16 it is computed in bfloat16 too, and kernels that it reads in float32 stay
        float32. Kernels in int8 are computed with in float32.
        """
        dtype = "bfloat16" if kind == "bfloat16" else "float32"
        options = self.options.changed(dtype=dtype)
        arrays = kernels.stored(self.arrays, kind=kind, rounded=kernels.rounded(options))
        return dataclasses.replace(self, options=options, arrays=arrays, stored=kind)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A program for images of one size and for one number of them, in a file of its own."""

    name: str  # of the file
    program: Program
    batch: int | None  # None: any number of images

    def facts(self) -> dict[str, Any]:
        """What card.json says of it."""
        return {"image_size": list(self.program.preprocessing.image_size), "batch": self.batch}

    @functools.cached_property  # symbolic sizes of two calls would not be equal
    def images(self) -> jax.ShapeDtypeStruct:
        """The images that it takes."""
        batch = export.symbolic_shape("batch")[0] if self.batch is None else self.batch
        return jax.ShapeDtypeStruct(self.program.image_shape(batch), np.uint8)


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
        options=attention_choice.runnable(plain, platform="cpu"),
        preprocessing=model.preprocessing,
        activation=activation,
        arrays={path: flat[path] for path in surgery.shapes(plain)},
    )


def sharing(programs: Sequence[Program]) -> list[Program]:
    """Programs of one model for several image sizes, with one set of arrays for all of them.

    Arrays that differ, such as positions, are there for each size, with the size in their name.
    """
    first = programs[0].arrays
    same = {name for name in first if all(_equal(p.arrays[name], first[name]) for p in programs)}
    arrays = {
        name if name in same else f"{name}{OF_SIZE}{program.size}": array
        for program in programs
        for name, array in program.arrays.items()
    }
    return [dataclasses.replace(program, arrays=arrays) for program in programs]


def variants(
    programs: Sequence[Program], batches: Sequence[int], *, suffix: str
) -> Iterator[Variant]:
    """A program for each image size and each batch size; without batch sizes, one for any."""
    for program in programs:
        for batch in batches or (None,):
            size = program.size if len(programs) > 1 else ""
            parts = filter(None, ("program", size, str(batch or "")))
            yield Variant(name="_".join(parts) + suffix, program=program, batch=batch)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
