"""Corruptions of images at five severities, as ImageNet-C defines them (arXiv 1903.12261).

The constants are those of its published code, for images of 224x224 pixels. Here they are applied
to the crop of the model's size, and the result is not saved as JPEG, as the images of ImageNet-C
are. The random numbers of noise depend only on the number of the image in its split and on the
severity.
"""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import PIL.Image

from vit_jax.data.opencv import cv2

SEVERITIES = (1, 2, 3, 4, 5)
_NOISE = 0x1A6E  # the stream of random numbers

# (image uint8 (H, W, C), severity from 1 to 5, its random numbers) -> uint8 (H, W, C)
Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Corrupt:
    """A corruption of a severity, as a version of the images of a split (`pipeline.Version`)."""

    corruption: str  # a name of `CORRUPTIONS`
    severity: int  # 1 to 5

    def __call__(self, image: np.ndarray, number: int) -> np.ndarray:
        draws = np.random.default_rng((_NOISE, self.severity, number))
        return CORRUPTIONS[self.corruption](image, self.severity, draws)


def noise(image: np.ndarray, severity: int, draws: np.random.Generator) -> np.ndarray:
    """ImageNet-C's gaussian_noise."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return _pixels(image / 255.0 + draws.normal(size=image.shape, scale=scale))


def blur(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """ImageNet-C's gaussian_blur."""
    from scipy import ndimage  # slow to import

    sigma = (1, 2, 3, 4, 6)[severity - 1]
    return _pixels(ndimage.gaussian_filter(image / 255.0, (sigma, sigma, 0), mode="nearest"))


def defocus(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """ImageNet-C's defocus_blur: a disk with soft edges."""
    radius, soft = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    side = np.arange(-max(radius, 8), max(radius, 8) + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(np.float32)
    window = (3, 3) if radius <= 8 else (5, 5)
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=window, sigmaX=soft)
    return _pixels(cv2.filter2D(image / 255.0, -1, kernel).reshape(image.shape))


def contrast(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """ImageNet-C's contrast: less distance from the mean of each channel."""
    share = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    values = image / 255.0
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _pixels((values - mean) * share + mean)


def jpeg(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """ImageNet-C's jpeg_compression."""
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(PIL.Image.open(file)).reshape(image.shape)


def pixelate(image: np.ndarray, severity: int, _: np.random.Generator) -> np.ndarray:
    """ImageNet-C's pixelate."""
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    picture = _picture(image)
    small = [max(1, int(side * share)) for side in picture.size]
    box = PIL.Image.Resampling.BOX
    restored = picture.resize((small[0], small[1]), box).resize(picture.size, box)
    return np.asarray(restored).reshape(image.shape)


# By the name on the command line and in a config.
CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "defocus": defocus,
    "contrast": contrast,
    "jpeg": jpeg,
    "pixelate": pixelate,
}


def _pixels(values: np.ndarray) -> np.ndarray:
    """Values that should be in [0, 1] as uint8, cut off as in ImageNet-C."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def _picture(image: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
