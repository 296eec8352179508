"""What a model expects of its images; every released or trained model carries its own."""

import dataclasses
import math
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

MAX_PIXELS, MIN_CROP = 2**26, 0.05  # what is resized stays within memory


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

    def __post_init__(self) -> None:
        """Raises ValueError for what no image can be prepared by: a file may tell anything."""
        height, width = self.image_size
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise ValueError(
                f"images of {height} x {width} are not possible: 1 to {MAX_PIXELS} pixels are"
            )
        if not MIN_CROP <= self.crop <= 1:
            raise ValueError(f"crop is {self.crop}: it must be in [{MIN_CROP}, 1]")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError(
                f"mean {self.mean} and std {self.std} must be finite, and std positive"
            )
