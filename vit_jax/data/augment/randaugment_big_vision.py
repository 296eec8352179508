"""RandAugment (arXiv 1909.13719) as big_vision's `randaug(layers, magnitude)` computes it.

Its operations are TensorFlow's. Some of their pixels and levels differ from Pillow's and timm's:
contrast is around the grey level height * width / 256, warps take the nearest pixel, translations
are of 100 pixels at magnitude 10, and the threshold of solarize is cut to 8 bits: it is 0 at the
magnitudes 10 and 20, which inverts all values, and 128 at 15. `cutout` is one of the operations.
"""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from vit_jax.data.augment import operations
from vit_jax.data.augment.contract import HostAugmentation
from vit_jax.data.counter import NUMBERS
from vit_jax.data.opencv import cv2

OPERATIONS = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "colour"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
    *("cutout", "solarize_add"),
)
_EACH = 4  # random numbers of a layer
_FILL = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugmentBigVision(HostAugmentation):
    """Applies random operations as big_vision does: the defaults are its randaug(2,15)."""

    layers: int = 2  # operations for each image
    magnitude: float = 15.0  # strength of the operations

    stream: ClassVar[str] = "randaugment_big_vision"

    def __post_init__(self) -> None:
        name = "randaugment_big_vision's"
        if not 1 <= self.layers <= NUMBERS // _EACH:
            most = NUMBERS // _EACH
            raise ValueError(f"{name} layers is {self.layers}: it must be from 1 to {most}")
        if not 0 <= self.magnitude <= 30:  # NaN is not
            raise ValueError(f"{name} magnitude is {self.magnitude}: it must be in [0, 30]")

    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        for chosen, sign, y, x in numbers[: _EACH * self.layers].reshape(-1, _EACH).tolist():
            name = OPERATIONS[int(chosen * len(OPERATIONS))]
            image = self.applied(name, image, negative=sign < 0.5, place=(y, x))
        return image

    def applied(
        self, name: str, image: np.ndarray, *, negative: bool, place: tuple[float, float]
    ) -> np.ndarray:
        """The image after one of `OPERATIONS`.

        `negative` is the direction, if it has one, and `place` the centre of `cutout` in [0, 1).
        """
        share = self.magnitude / 10
        signed = -share if negative else share
        factor = share * 1.8 + 0.1
        match name:
            case "autocontrast":
                return _autocontrast(image)
            case "equalize":
                return operations.equalize(image)
            case "invert":
                return operations.invert(image)
            case "posterize":
                return _posterize(image, int(share * 4))
            case "solarize":
                return operations.solarize(image, int(share * 256) % 256)
            case "solarize_add":
                return operations.solarize_add(image, int(share * 110))
            case "brightness":
                return operations.brightness(image, factor)
            case "contrast":
                level = min(255, int(image.shape[0] * image.shape[1] / 256))
                return operations.contrast_around(image, factor, level=level)
            case "colour":
                return _colour(image, factor)
            case "sharpness":
                return _sharpness(image, factor)
            case "cutout":
                return _cutout(image, int(share * 40), place=place)
            case "rotate":
                return _nearest(image, *_rotation(signed * 30, image.shape[:2]))
            case "shear_x":
                return _nearest(image, (1, signed * 0.3, 0), (0, 1, 0))
            case "shear_y":
                return _nearest(image, (1, 0, 0), (signed * 0.3, 1, 0))
            case "translate_x":
                return _nearest(image, (1, 0, signed * 100), (0, 1, 0))
            case _:
                return _nearest(image, (1, 0, 0), (0, 1, signed * 100))


def _autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0 ... 255, in float32."""
    values, tables = np.arange(256, dtype=np.float32), []
    for counts in operations.histograms(image):
        seen = np.flatnonzero(counts)
        low, high = np.float32(seen[0]), np.float32(seen[-1])
        if high > low:
            scale = np.float32(255) / (high - low)
            tables.append((values * scale + -low * scale).clip(0, 255).astype(np.uint8))
        else:
            tables.append(values.astype(np.uint8))
    return operations.mapped(image, *tables)


def _posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest `bits`; for more than 8, TensorFlow's shift wraps around to 7 places."""
    return operations.posterize(image, bits if bits <= 8 else 1) if bits else image & 128


def _colour(image: np.ndarray, factor: float) -> np.ndarray:
    if image.shape[2] == 1:
        return image
    weights = np.array([0.2989, 0.587, 0.114], np.float32)
    values = image.astype(np.float32) * np.float32(1 / 255)
    grey = (values @ weights * np.float32(255.5)).clip(0, 255).astype(np.uint8)
    return operations.blended(np.stack([grey] * 3, -1), image, factor)


def _sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Like Pillow's, but means of 3x3 pixels are cut, not rounded."""
    smooth = image.copy()
    if min(image.shape[:2]) > 2:
        height, width = image.shape[0] - 2, image.shape[1] - 2
        wide = image.astype(np.int32)
        total = 4 * wide[1:-1, 1:-1]
        for y, x in np.ndindex(3, 3):
            total += wide[y : y + height, x : x + width]
        smooth[1:-1, 1:-1] = total // 13
    return operations.blended(smooth, image, factor)


def _cutout(image: np.ndarray, half: int, *, place: tuple[float, float]) -> np.ndarray:
    """A grey square with sides of 2 * `half` pixels around a place, clipped to the image."""
    found = image.copy()
    y, x = (int(share * length) for share, length in zip(place, image.shape[:2], strict=True))
    found[max(0, y - half) : y + half, max(0, x - half) : x + half] = _FILL
    return found


def _rotation(degrees: float, size: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """The lines of the matrix of a rotation around the centre."""
    angle = np.float32(math.radians(degrees))
    bottom, right = np.float32(size[0] - 1), np.float32(size[1] - 1)
    cosine, sine = np.cos(angle), np.sin(angle)
    x = (right - (cosine * right - sine * bottom)) / 2
    y = (bottom - (sine * right + cosine * bottom)) / 2
    return (cosine, -sine, x), (sine, cosine, y)


def _nearest(image: np.ndarray, to_x: tuple[float, ...], to_y: tuple[float, ...]) -> np.ndarray:
    """The pixel at the nearest place (a x + b y + c) of (a, b, c), or grey outside of the image."""
    height, width = image.shape[:2]
    columns = np.arange(width, dtype=np.float32)
    rows = np.arange(height, dtype=np.float32)[:, None]
    places = []
    for a, b, c in (to_x, to_y):
        place = np.float32(a) * columns + np.float32(b) * rows + np.float32(c)
        # Halves are rounded away from 0.
        places.append(np.copysign(np.floor(np.abs(place) + np.float32(0.5)), place))
    found = cv2.remap(
        np.ascontiguousarray(image),
        places[0],
        places[1],
        interpolation=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(_FILL,) * 4,
    )
    return found.reshape(image.shape)
