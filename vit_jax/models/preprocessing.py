"""What a model expects of its images; every released or trained model carries its own."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from vit_jax.models import limits

Interpolation = Literal[
    "area",
    "linear",
    "bilinear_antialias",
    "bicubic_antialias",
    "lanczos_antialias",
    "nearest",
]
Fit = Literal["crop", "crop_floor", "squash"]

# The statistics of ImageNet's pixels in [0, 1] that PyTorch's models are trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


LEAST_CROP = 0.05  # a smaller share of an image is a mistake


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image file to the model's input: resize, centre crop, (pixel - mean) / std.

    `fit`: "crop" keeps the aspect ratio and cuts off what is too long, "squash" resizes both sides.
    "crop_floor" is Hugging Face's "crop": of an odd number of pixels it cuts fewer at the top and
    left.
    """

    image_size: tuple[int, int]  # (height, width)
    crop_pct: float = 0.875  # image_size / crop_pct is covered by the resized image, then cropped
    interpolation: Interpolation = "area"
    fit: Fit = "crop"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of each channel's pixels in [0, 1]
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        """Raises ValueError for what no image can be prepared by: a file may tell anything."""
        height, width = self.image_size
        if min(height, width) < 1 or height * width > limits.MOST_PIXELS:
            most = f"1 to {limits.MOST_PIXELS} pixels are"
            raise ValueError(f"images of {height} x {width} are not possible: {most}")
        if not LEAST_CROP <= self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}: it must be in [{LEAST_CROP}, 1]")
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not finite or min(self.std, default=0) <= 0:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be finite, and std positive"
            )

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same with a mean and a std for each of so many channels.

        One channel gets the average of all, as grey is of colours; more get them in turn. Raises
        ValueError for a number of values that is neither.
        """
        mean, std = _for_channels(self.mean, channels), _for_channels(self.std, channels)
        return dataclasses.replace(self, mean=mean, std=std)


def check_images(
    images: jax.Array, *, channels: int, image_size: tuple[int, int] | None = None
) -> None:
    """Raises ValueError unless a model can take the images: (batch, height, width, channels).

    Of any size without `image_size`. Whole numbers are pixels that nobody has normalised: taken as
    they are, they would give wrong logits without a word.
    """
    sides = image_size or ("height", "width")
    expected = f"(batch, {sides[0]}, {sides[1]}, {channels})"
    shape = getattr(images, "shape", None)
    if shape is None:
        raise ValueError(f"images are of type {type(images).__name__}: give an array {expected}")
    fits = len(shape) == 4 and shape[3] == channels and image_size in (None, tuple(shape[1:3]))
    if not fits or 0 in shape[1:]:
        raise ValueError(f"images are {tuple(shape)}, the model takes {expected}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images are {images.dtype}, the model takes normalised float32: read files by"
            " vit_jax.read_images, or give (pixels / 255 - mean) / std of model.preprocessing"
        )


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    if len(values) not in (1, 3):
        raise ValueError(f"mean or std {values} is not a number for each of {channels} channels")
    if len(set(values)) > 1 and channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))
