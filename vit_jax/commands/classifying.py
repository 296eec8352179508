"""The most probable classes of images."""

import concurrent.futures
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from flax import nnx

from vit_jax.data import augment, preprocess
from vit_jax.images import read_pixels, transform_of
from vit_jax.models import zoo
from vit_jax.models.zoo import Model
from vit_jax.objectives import classification

BATCH = 32  # the most images that a model sees at once
THREADS = min(os.cpu_count() or 1, 16)  # that read images, while the model computes

Best = list[tuple[str, float]]  # pairs (class, probability), the most probable first


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reader:
    """A model, and how it reads images."""

    transform: preprocess.EvalTransform
    size: tuple[int, int]
    best: Callable[[np.ndarray], list[Best]]


def predict(
    models: Sequence[Model],
    paths: Sequence[str],
    *,
    top: int,
    names: Sequence[Sequence[str]],
) -> Iterator[tuple[str, list[Best] | str]]:
    """For every path the `top` classes of each model, or a message if the file is bad.

    `names` has the names of the classes of each model. Files are read by threads, one batch ahead.
    Batches are of almost equal sizes, so that little of the last one is padding.
    """
    batch = math.ceil(len(paths) / math.ceil(len(paths) / BATCH)) if paths else 1
    readers = [_reader(model, top=top, names=own) for model, own in zip(models, names, strict=True)]
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:

        def start(chunk: Sequence[str]) -> list[concurrent.futures.Future[list[np.ndarray] | str]]:
            return [pool.submit(_read, path, readers) for path in chunk]

        chunks = [paths[i : i + batch] for i in range(0, len(paths), batch)]
        reading = start(chunks[0]) if chunks else []
        for chunk, following in itertools.zip_longest(chunks, chunks[1:], fillvalue=()):
            images, reading = [future.result() for future in reading], start(following)
            best = [_best(reader, i, images, batch) for i, reader in enumerate(readers)]
            for row, (path, image) in enumerate(zip(chunk, images, strict=True)):
                yield path, image if isinstance(image, str) else [of[row] for of in best]


def classify(model: Model, *, top: int, names: Sequence[str]) -> Callable[[np.ndarray], list[Best]]:
    """A function from images uint8 (B, H, W, C) to the `top` pairs (class, probability) of each.

    `names` are those of the model's classes. Raises ValueError for a model without classes.
    """
    zoo.check_head(model.options)
    kind = classification.trained_with(model)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    # Parameters are an argument, so that they are not constants in the compiled program.
    graphdef, params = nnx.split(model)

    @jax.jit
    def compute(params: nnx.State, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        normal = augment.normalize(images, mean=wanted.mean, std=wanted.std)
        logits = nnx.merge(graphdef, params)(normal)
        return logits, classification.probabilities(logits, kind=kind)

    def best(images: np.ndarray) -> list[Best]:
        logits, rows = map(np.asarray, compute(params, images))
        # By the logits: several sigmoids may be rounded to 1.
        order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
        return [
            [(names[i], float(row[i])) for i in of] for row, of in zip(rows, order, strict=True)
        ]

    return best


def _reader(model: Model, *, top: int, names: Sequence[str]) -> _Reader:
    best = classify(model, top=top, names=names)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    return _Reader(transform=transform_of(model), size=wanted.image_size, best=best)


def _read(path: str, readers: Sequence[_Reader]) -> list[np.ndarray] | str:
    """Pixels for each model, uint8 (H, W, C), or a message if the file is bad."""
    try:
        return [read_pixels(path, reader.transform) for reader in readers]
    except ValueError as error:
        return str(error)


def _best(
    reader: _Reader, number: int, images: Sequence[list[np.ndarray] | str], batch: int
) -> list[Best]:
    """The classes that the model `number` gives to a batch; those of bad files mean nothing."""
    pixels = np.zeros((batch, *reader.size, reader.transform.channels), np.uint8)
    for row, image in enumerate(images):
        if not isinstance(image, str):
            pixels[row] = image[number]
    return reader.best(pixels)
