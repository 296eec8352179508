"""How images are prepared for a model; every released or trained model records this."""

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

# Statistics of ImageNet's pixels in [0, 1], with which PyTorch's models are trained.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LEAST_CROP = 0.05  # a smaller crop_pct is a mistake


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image file to the model's input: resize, centre crop, (pixel - mean) / std.

    `fit`: "crop" keeps the aspect ratio and cuts the longer side; "squash" resizes both sides.
    "crop_floor" is Hugging Face's crop: if an odd number of pixels is cut, one less is cut at the
    top or left.
    """

    image_size: tuple[int, int]  # (height, width)
    crop_pct: float = 0.875  # the image is resized to cover image_size / crop_pct, then cropped
    interpolation: Interpolation = "area"
    fit: Fit = "crop"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # for each channel, of pixels in [0, 1]
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        """Raises ValueError for impossible values: they may come from an untrusted file."""
        height, width = self.image_size
        if min(height, width) < 1 or height * width > limits.MOST_PIXELS:
            raise ValueError(
                f"image_size is {height} x {width}: it must have 1 to {limits.MOST_PIXELS:,} pixels"
            )
        if not LEAST_CROP <= self.crop_pct <= 1:
            raise ValueError(f"crop_pct is {self.crop_pct}: it must be in [{LEAST_CROP}, 1]")
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if not finite or min(self.std, default=0) <= 0:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be finite, and std positive"
            )

    def for_channels(self, channels: int) -> "Preprocessing":
        """The same with one mean and one std for each channel.

        One channel gets the average of the values; more channels get the values in turn. Raises
        ValueError unless there are 1, 3 or `channels` values.
        """
        mean, std = _for_channels(self.mean, channels), _for_channels(self.std, channels)
        return dataclasses.replace(self, mean=mean, std=std)


def check_images(
    images: jax.Array, *, channels: int, image_size: tuple[int, int] | None = None
) -> None:
    """Raises ValueError unless a model can take the images: (batch, height, width, channels).

    Without `image_size`, images may have any size. Integer images are raw pixels. Using them
    unnormalised would silently give wrong logits, so they are refused.
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
            f"images are {images.dtype}, the model takes normalised float32: read files with"
            " vit_jax.read_images, or give (pixels / 255 - mean) / std of model.preprocessing"
        )


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    if len(values) not in (1, 3):
        raise ValueError(
            f"mean or std {values} has {len(values)} values: give one for each of"
            f" {channels} channels"
        )
    if len(set(values)) > 1 and channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(channels))
