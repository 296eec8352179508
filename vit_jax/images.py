"""Image files as the input of a model, the way its `preprocessing` says."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from vit_jax.data import augment, preprocess
from vit_jax.models.zoo import Model


def read_images(paths: Sequence[str | os.PathLike[str]], model: Model) -> np.ndarray:
    """Files (JPEG, PNG, WebP) as `model(images)` takes them: float32 (N, height, width, 3).

    Resized, cut and normalised by `model.preprocessing`. Raises ValueError in one line for the
    first file that cannot be read.
    """
    transform = transform_of(model)
    wanted = model.preprocessing
    assert wanted is not None
    pixels = np.zeros((len(paths), *wanted.image_size, 3), np.uint8)
    for row, path in enumerate(paths):
        try:
            pixels[row] = read_pixels(path, transform)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
    return np.asarray(augment.normalize(pixels, mean=wanted.mean, std=wanted.std))


def read_pixels(path: str | os.PathLike[str], transform: preprocess.EvalTransform) -> np.ndarray:
    """uint8 (height, width, 3) of a file. Raises ValueError that says what is wrong with it."""
    try:
        return transform(transform.decode(pathlib.Path(path).read_bytes()))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def transform_of(model: Model) -> preprocess.EvalTransform:
    """From a decoded image to what a model expects. Raises ValueError where that is not known."""
    wanted = model.preprocessing
    if wanted is None:
        raise ValueError("the model has no preprocessing: set model.preprocessing")
    return preprocess.EvalTransform(
        size=wanted.image_size, center=wanted.crop, kernel=wanted.kernel, fit=wanted.fit
    )
