"""Reads image files as the input of a model, as its `preprocessing` says."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np

from vit_jax.data import augment, preprocess
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.zoo import Model


def read_images(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], model: Model
) -> np.ndarray:
    """Reads files (JPEG, PNG, WebP) as input of the model: float32 (N, height, width, channels).

    `paths` may be one path; N is then 1. Images are resized, cropped and normalised as
    `model.preprocessing` says, and turned as their EXIF orientation says. A model of one channel
    gets grey, of three channels RGB. For any other number of channels, the files must have as many.
    Raises ValueError in one line for the first file that cannot be read.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    transform = transform_of(model)
    wanted = model.preprocessing
    assert wanted is not None
    pixels = np.zeros((len(paths), *wanted.image_size, transform.channels), np.uint8)
    for row, path in enumerate(paths):
        try:
            pixels[row] = read_pixels(path, transform)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
    return np.asarray(augment.normalize(pixels, mean=wanted.mean, std=wanted.std))


def read_pixels(path: str | os.PathLike[str], transform: preprocess.EvalTransform) -> np.ndarray:
    """A file as uint8 (height, width, C). Raises ValueError that says what is wrong with it."""
    try:
        return transform(transform.decode(pathlib.Path(path).read_bytes()))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def transform_of(model: Model, *, orient: bool = True) -> preprocess.EvalTransform:
    """The transform from a file, or a decoded image, to what a model expects.

    `orient`: turn images as their EXIF orientation says. Raises ValueError if the model has no
    preprocessing.
    """
    if model.preprocessing is None:
        raise ValueError("the model has no preprocessing: set model.preprocessing")
    return transform_for(model.preprocessing, channels=model.options.channels, orient=orient)


def transform_for(
    wanted: Preprocessing, *, channels: int, orient: bool
) -> preprocess.EvalTransform:
    """As `transform_of`, for a model with this preprocessing and number of channels."""
    return preprocess.EvalTransform(
        size=wanted.image_size,
        center=wanted.crop_pct,
        interpolation=wanted.interpolation,
        fit=wanted.fit,
        channels=channels,
        orient=orient,
    )
