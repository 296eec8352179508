"""What a model expects of its images; every released or trained model carries its own."""

import dataclasses
from typing import Literal

Kernel = Literal["area", "linear", "bilinear_antialias", "bicubic_antialias"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """From an image file to the model's input: resize, centre crop, (pixel - mean) / std."""

    image_size: tuple[int, int]  # (height, width)
    crop: float = 0.875  # image_size / crop is covered by the resized image, then cropped
    kernel: Kernel = "area"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # of pixels in [0, 1]
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
