"""Crops of training images, on the host. A config chooses one, and each has its own fields.

Randomness is an argument: `numbers`, the uniform numbers of one sample (`counter.draw`).
"""

import abc
import dataclasses
import math
from typing import Protocol

import numpy as np

from vit_jax.data.resize import PILLOW, resize, resize_part
from vit_jax.models.preprocessing import Fit, Interpolation

LARGE = 2**24  # if a resized image has more pixels, only the part that is kept is computed
ATTEMPTS = 10  # to draw a box that lies inside the image, 4 numbers each
ASPECT = (3 / 4, 4 / 3)  # of a random box: width / height, relative to the target's


class Target(Protocol):
    """What a crop must produce: see `preprocess.TrainTransform`."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def center(self) -> float: ...

    @property
    def interpolation(self) -> Interpolation: ...

    @property
    def fit(self) -> Fit: ...


class Crop(Protocol):
    """An entry of `CROPS`: a dataclass whose fields are its part of the config."""

    def check(self, size: tuple[int, int], /) -> None:
        """Raises ValueError if its fields do not fit images of `size`."""

    def __call__(self, image: np.ndarray, target: Target, /, *, numbers: np.ndarray) -> np.ndarray:
        """uint8 (h, w, C), float64 (NUMBERS,) in [0, 1) -> uint8 (H, W, C)."""


class _RandomBox(abc.ABC):
    """A random box of the image, resized to the size of the model's images."""

    crop_area: tuple[float, float]

    def check(self, size: tuple[int, int], /) -> None:
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(
                f"config.data.crop_area is {self.crop_area}: give 0 < low <= high <= 1"
            )

    def __call__(self, image: np.ndarray, target: Target, /, *, numbers: np.ndarray) -> np.ndarray:
        top, left, height, width = self.box(image.shape, target.size, numbers=numbers)
        part = image[top : top + height, left : left + width]
        return resize(part, target.size, target.interpolation)

    @abc.abstractmethod
    def box(
        self, shape: tuple[int, ...], target: tuple[int, int], *, numbers: np.ndarray
    ) -> tuple[int, int, int, int]:
        """(top, left, height, width) within an image of `shape`, for images of size `target`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inception(_RandomBox):
    """A random box as TensorFlow draws it: see `inception_box`."""

    crop_area: tuple[float, float] = (0.05, 1.0)  # smallest and largest share of the image's area

    def box(
        self, shape: tuple[int, ...], target: tuple[int, int], *, numbers: np.ndarray
    ) -> tuple[int, int, int, int]:
        return inception_box(shape, target, area=self.crop_area, numbers=numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomResized(_RandomBox):
    """A random box as torchvision and timm draw it: see `random_resized_box`.

    Its area is uniform, so boxes are larger on average than those of `inception`, where the height
    is.
    """

    crop_area: tuple[float, float] = (0.08, 1.0)  # smallest and largest share of the image's area
    # One box is drawn, and its sides are cut to the image's, as in BYOL and MAE's linear probe.
    # Unset: boxes are drawn until one lies inside the image.
    crop_limited: bool = False

    def box(
        self, shape: tuple[int, ...], target: tuple[int, int], *, numbers: np.ndarray
    ) -> tuple[int, int, int, int]:
        return random_resized_box(
            shape, target, area=self.crop_area, limited=self.crop_limited, numbers=numbers
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift:
    """The resized image, moved by up to `shift` pixels; uncovered pixels are black."""

    shift: int = 0  # largest displacement in pixels, along each axis

    def check(self, size: tuple[int, int], /) -> None:
        if self.shift < 0:
            raise ValueError(f"config.data.shift is {self.shift}: it cannot be negative")
        if self.shift > max(size):
            raise ValueError(f"config.data.shift is {self.shift}: it must be at most {max(size)}")

    def __call__(self, image: np.ndarray, target: Target, /, *, numbers: np.ndarray) -> np.ndarray:
        image = center_crop(image, target.size, share=1.0, interpolation=target.interpolation)
        return shift(image[None], limit=self.shift, numbers=numbers[None])[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simple:
    """DeiT III's simple random crop: the resized image, mirrored at its edges, cut at random.

    The smaller side gets the size of the model's images, so most of the image is seen (section 3.2
    of arXiv 2204.07118).
    """

    crop_padding: int = 4  # mirrored pixels at each edge

    def check(self, size: tuple[int, int], /) -> None:
        if not 0 <= 2 * self.crop_padding < min(size):  # else the mirror is mirrored again
            raise ValueError(
                f"config.data.crop_padding is {self.crop_padding}: it must be at least 0 and less"
                f" than half of the smaller side of the images, {min(size)}"
            )

    def __call__(self, image: np.ndarray, target: Target, /, *, numbers: np.ndarray) -> np.ndarray:
        resized = _covering(image.shape, target.size, interpolation=target.interpolation)
        margins = [full - side for full, side in zip(resized, target.size, strict=True)]
        top, left = (
            int(number * (margin + 2 * self.crop_padding + 1)) - self.crop_padding
            for number, margin in zip(numbers.ravel(), margins, strict=False)
        )
        # What is inside of the image, and how many mirrored lines are missing at each side.
        first = max(top, 0), max(left, 0)
        last = min(top + target.size[0], resized[0]), min(left + target.size[1], resized[1])
        inside = (*first, last[0] - first[0], last[1] - first[1])
        part = _cut_resized(image, resized, inside, interpolation=target.interpolation)
        missing = [
            (begin - corner, corner + side - end)
            for begin, corner, side, end in zip(first, (top, left), target.size, last, strict=True)
        ]
        return np.pad(part, (*missing, (0, 0)), mode="reflect")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Center:
    """The crop of evaluation, resized with the interpolation of training."""

    def check(self, size: tuple[int, int], /) -> None:
        pass

    def __call__(self, image: np.ndarray, target: Target, /, *, numbers: np.ndarray) -> np.ndarray:
        return center_crop(
            image,
            target.size,
            share=target.center,
            interpolation=target.interpolation,
            fit=target.fit,
        )


CROPS: dict[str, type[Crop]] = {
    "inception": Inception,
    "random_resized": RandomResized,
    "simple": Simple,
    "shift": Shift,
    "center": Center,
}


def inception_box(
    shape: tuple[int, ...],
    target: tuple[int, int],
    *,
    area: tuple[float, float],
    numbers: np.ndarray,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box within an image of `shape` (height, width).

    Its area is a share in `area` of the image's. Its aspect ratio is the target's times a factor in
    `ASPECT`. As in TensorFlow's sample_distorted_bounding_box, the aspect ratio, then the height,
    then the corner are uniform over the values that fit. If `ATTEMPTS` boxes do not fit, the result
    is the largest central box with an allowed aspect ratio.
    """
    h, w = shape[:2]
    ratio = target[1] / target[0]
    low, high = (share * h * w for share in area)
    for u_aspect, u_height, u_top, u_left in numbers.reshape(ATTEMPTS, 4).tolist():
        aspect = ratio * (ASPECT[0] + u_aspect * (ASPECT[1] - ASPECT[0]))
        shortest = round(math.sqrt(low / aspect))
        tallest = min(round(math.sqrt(high / aspect)), h, int((w + 0.5) / aspect))
        height = shortest + int(u_height * max(tallest - shortest + 1, 1))
        width = round(height * aspect)
        if 0 < height <= h and 0 < width <= w and low <= height * width <= high:
            return int(u_top * (h - height + 1)), int(u_left * (w - width + 1)), height, width
    return _central_box(h, w, ratio=ratio)


def random_resized_box(
    shape: tuple[int, ...],
    target: tuple[int, int],
    *,
    area: tuple[float, float],
    limited: bool = False,
    numbers: np.ndarray,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box within an image of `shape` (height, width).

    As in torchvision's RandomResizedCrop, the share of the image's area is uniform in `area`, and
    the logarithm of the aspect ratio is uniform too; the ratio is the target's times a factor in
    `ASPECT`. If `ATTEMPTS` boxes do not fit, the result is the largest central box with an allowed
    aspect ratio. If `limited`, the first box is taken, and its sides are at most the image's.
    """
    h, w = shape[:2]
    ratio = target[1] / target[0]
    for u_area, u_aspect, u_top, u_left in numbers.reshape(ATTEMPTS, 4).tolist():
        pixels = h * w * (area[0] + u_area * (area[1] - area[0]))
        aspect = ratio * ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** u_aspect
        height, width = round(math.sqrt(pixels / aspect)), round(math.sqrt(pixels * aspect))
        if limited:  # a side of 0 pixels is possible only in images of a few
            height, width = min(max(height, 1), h), min(max(width, 1), w)
        if 0 < height <= h and 0 < width <= w:
            return int(u_top * (h - height + 1)), int(u_left * (w - width + 1)), height, width
    return _central_box(h, w, ratio=ratio)


def shift(images: np.ndarray, *, limit: int, numbers: np.ndarray) -> np.ndarray:
    """Moves each image of uint8 (N, H, W, C) by up to `limit` pixels per axis, filling black."""
    if limit == 0:
        return images
    h, w = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (limit, limit), (limit, limit), (0, 0)))
    corners = (numbers[:, :2] * (2 * limit + 1)).astype(int).tolist()
    moved = np.empty_like(images)
    for row, (top, left) in enumerate(corners):
        moved[row] = padded[row, top : top + h, left : left + w]
    return moved


def center_crop(
    image: np.ndarray,
    size: tuple[int, int],
    *,
    share: float,
    interpolation: Interpolation,
    fit: Fit = "crop",
) -> np.ndarray:
    """Resizes, keeping the aspect ratio, to cover `size / share`, then cuts `size` from the centre.

    With `fit` "squash" both sides are resized to `size / share`, whatever the aspect ratio was.
    The limiting side becomes `floor(size / share)`: 256 for 224 / 0.875. Odd margins are split as
    the interpolation's library splits them: torchvision for Pillow's interpolations, else
    big_vision. "crop_floor" puts the smaller half at the top and left, like Hugging Face.
    """
    resized = _covering(image.shape, size, share=share, interpolation=interpolation)
    if fit == "squash":
        resized = _larger(size, share)
    margins = [full - side for full, side in zip(resized, size, strict=True)]
    floors = interpolation not in PILLOW or fit == "crop_floor"
    top, left = (m // 2 if floors else round(m / 2) for m in margins)
    return _cut_resized(image, resized, (top, left, *size), interpolation=interpolation)


def _central_box(h: int, w: int, *, ratio: float) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest central box with an allowed aspect ratio."""
    aspect = min(max(w / h, ratio * ASPECT[0]), ratio * ASPECT[1])
    height, width = min(h, max(1, round(w / aspect))), min(w, max(1, round(h * aspect)))
    return (h - height) // 2, (w - width) // 2, height, width


def _covering(
    shape: tuple[int, ...],
    size: tuple[int, int],
    *,
    share: float = 1.0,
    interpolation: Interpolation,
) -> tuple[int, int]:
    """The size of an image of `shape` when it just covers `size / share`: see `center_crop`."""
    h, w = shape[:2]
    cover = _larger(size, share)
    scale = max(cover[0] / h, cover[1] / w)
    # 1e-9 makes the limiting side exact in spite of rounding. torchvision rounds down, and has no
    # other size than square; timm rounds for these.
    floors = interpolation in PILLOW and cover[0] == cover[1]
    whole = (lambda side: int(side + 1e-9)) if floors else round
    return max(whole(h * scale), size[0]), max(whole(w * scale), size[1])


def _cut_resized(
    image: np.ndarray,
    resized: tuple[int, int],
    part: tuple[int, int, int, int],
    *,
    interpolation: Interpolation,
) -> np.ndarray:
    """The part (top, left, H, W) of the image after it is resized."""
    top, left, height, width = part
    if resized[0] * resized[1] > max(LARGE, 8 * height * width):
        return resize_part(image, resized, part, interpolation)
    return resize(image, resized, interpolation)[top : top + height, left : left + width]


def _larger(size: tuple[int, int], share: float) -> tuple[int, int]:
    return math.floor(size[0] / share + 1e-6), math.floor(size[1] / share + 1e-6)
