"""The most probable classes of images."""

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx

from vit_jax.data import augment, preprocess
from vit_jax.images import read_pixels, transform_of
from vit_jax.models import zoo
from vit_jax.models.zoo import Model

BATCH = 32


def predict(
    model: Model, paths: Sequence[str], *, top: int
) -> Iterator[tuple[str, list[tuple[str, float]] | str]]:
    """For every path the `top` pairs (class, probability), or a message if the file is bad."""
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    transform = transform_of(model)
    best = classify(model, top=top)
    for first in range(0, len(paths), BATCH):
        chunk = paths[first : first + BATCH]
        read = [_read(path, transform) for path in chunk]
        batch = np.zeros((min(BATCH, len(paths)), *wanted.image_size, transform.channels), np.uint8)
        for row, image in enumerate(read):
            if not isinstance(image, str):
                batch[row] = image
        for path, image, classes in zip(chunk, read, best(batch), strict=False):
            yield path, image if isinstance(image, str) else classes


def classify(model: Model, *, top: int) -> Callable[[np.ndarray], list[list[tuple[str, float]]]]:
    """A function from images uint8 (B, H, W, C) to the `top` pairs (class, probability) of each."""
    zoo.check_head(model.options)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    names = model.class_names or tuple(str(i) for i in range(model.options.num_classes))
    # Parameters are an argument, so that they are not constants in the compiled program.
    graphdef, params = nnx.split(model)

    @jax.jit
    def probabilities(params: nnx.State, images: jax.Array) -> jax.Array:
        normal = augment.normalize(images, mean=wanted.mean, std=wanted.std)
        return jax.nn.softmax(nnx.merge(graphdef, params)(normal))

    def best(images: np.ndarray) -> list[list[tuple[str, float]]]:
        rows = np.asarray(probabilities(params, images))
        order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
        return [
            [(names[i], float(row[i])) for i in best] for row, best in zip(rows, order, strict=True)
        ]

    return best


def _read(path: str, transform: preprocess.EvalTransform) -> np.ndarray | str:
    """Pixels for the model, uint8 (H, W, C), or a message if the file is bad."""
    try:
        return read_pixels(path, transform)
    except ValueError as error:
        return str(error)
