"""What a model expects of its images; every released or trained model carries its own."""

import dataclasses
from typing import Literal

Kernel = Literal[
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image file to the model's input: resize, centre crop, (pixel - mean) / std.

    `fit`: "crop" keeps the aspect ratio and cuts off what is too long, "squash" resizes both sides.
    "crop_floor" is Hugging Face's "crop": of an odd number of pixels it cuts fewer at the top and
    left.
    """

    image_size: tuple[int, int]  # (height, width)
    crop: float = 0.875  # image_size / crop is covered by the resized image, then cropped
    kernel: Kernel = "area"
    fit: Fit = "crop"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of pixels in [0, 1]
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
