"""From an encoded image to uint8 pixels of the model's size, on the host.

What is random is an argument: `numbers`, the uniform numbers of one sample (`counter.draw`).
Everything per pixel after the crop (flip, value range, mixup) runs on the device (`augment`).
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from vit_jax.config import LEAST_CROP, DataConfig, Fit, Kernel
from vit_jax.data.decode import BrokenImageError as BrokenImageError
from vit_jax.data.decode import decode as decode
from vit_jax.data.resize import PILLOW, resize, resize_part

Crop = Literal["inception", "shift", "center"]

LARGE = 2**24  # pixels of a resized image, beyond which only what is kept is made
ATTEMPTS = 10  # of the inception crop, 4 numbers each
ASPECT = (3 / 4, 4 / 3)  # of the inception crop: width / height, relative to the target's


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """A random crop of an image, resized to `size` (height, width).

    inception: a box of random area and aspect ratio, see `inception_box`.
    shift: the image resized to `size`, moved by up to `shift` pixels, black where it was not.
    center: what evaluation sees, with this kernel.
    """

    size: tuple[int, int]
    crop: Crop
    crop_area: tuple[float, float] = (0.05, 1.0)
    shift: int = 0
    center: float = 1.0  # share of the short side that `center` keeps
    kernel: Kernel = "linear"
    fit: Fit = "crop"  # likewise
    channels: int = 3  # of the model
    orient: bool = False  # as EXIF says

    def __call__(self, image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint8 (h, w, C), float64 (NUMBERS,) in [0, 1) -> uint8 (H, W, C)."""
        if self.crop == "inception":
            top, left, height, width = inception_box(
                image.shape[:2], self.size, area=self.crop_area, numbers=numbers
            )
            return resize(image[top : top + height, left : left + width], self.size, self.kernel)
        if self.crop == "center":
            return center_crop(
                image, self.size, share=self.center, kernel=self.kernel, fit=self.fit
            )
        image = center_crop(image, self.size, share=1.0, kernel=self.kernel)
        return shift(image[None], limit=self.shift, numbers=numbers[None])[0]

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        return _decoded(data, self)

    def batch(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Every image of uint8 (N, h, w, C) with its row of `numbers` -> uint8 (N, H, W, C)."""
        if self.crop == "shift" and images.shape[1:3] == self.size:
            return shift(images, limit=self.shift, numbers=numbers)
        return np.stack([self(image, row) for image, row in zip(images, numbers, strict=True)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """The centre of an image at `size` (height, width), its aspect ratio kept unless `squash`."""

    size: tuple[int, int]
    center: float = 0.875  # share of the resized image's short side that is kept
    kernel: Kernel = "area"
    fit: Fit = "crop"
    channels: int = 3  # of the model
    orient: bool = False  # as EXIF says

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (h, w, C) -> uint8 (H, W, C)."""
        return center_crop(image, self.size, share=self.center, kernel=self.kernel, fit=self.fit)

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        return _decoded(data, self)


def train_transform(
    data: DataConfig, *, size: tuple[int, int], channels: int = 3
) -> TrainTransform:
    """What `data` does to training images. Raises ValueError where it makes no sense."""
    low, high = data.crop_area
    if not 0 < low <= high <= 1:
        raise ValueError(f"config.data.crop_area is {data.crop_area}: give 0 < low <= high <= 1")
    if data.shift < 0:
        raise ValueError(f"config.data.shift is {data.shift}: it cannot be negative")
    if data.shift > max(size):
        raise ValueError(f"config.data.shift is {data.shift}: the image has {max(size)} pixels")
    _check_eval_crop(data)
    return TrainTransform(
        size=size,
        crop=data.crop,
        crop_area=data.crop_area,
        shift=data.shift,
        center=data.eval_crop,
        kernel=data.kernel,
        fit=data.eval_fit,
        channels=channels,
        orient=data.orientation,
    )


def eval_transform(data: DataConfig, *, size: tuple[int, int], channels: int = 3) -> EvalTransform:
    """What `data` does to images for evaluation. Raises ValueError where it makes no sense."""
    _check_eval_crop(data)
    return EvalTransform(
        size=size,
        center=data.eval_crop,
        kernel=data.eval_kernel,
        fit=data.eval_fit,
        channels=channels,
        orient=data.orientation,
    )


def inception_box(
    shape: tuple[int, ...],
    target: tuple[int, int],
    *,
    area: tuple[float, float],
    numbers: np.ndarray,
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a random box within an image of `shape` (height, width).

    Its area is a share `area` of the image's, its aspect ratio in `ASPECT` times the target's.
    As TensorFlow's sample_distorted_bounding_box: the ratio, then the height, then the place are
    uniform over what fits. After `ATTEMPTS` misses the largest central box of a legal ratio.
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
    aspect = min(max(w / h, ratio * ASPECT[0]), ratio * ASPECT[1])
    height, width = min(h, max(1, round(w / aspect))), min(w, max(1, round(h * aspect)))
    return (h - height) // 2, (w - width) // 2, height, width


def shift(images: np.ndarray, *, limit: int, numbers: np.ndarray) -> np.ndarray:
    """Moves each of uint8 (N, H, W, C) by up to `limit` pixels along both axes, filling black."""
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
    image: np.ndarray, size: tuple[int, int], *, share: float, kernel: Kernel, fit: Fit = "crop"
) -> np.ndarray:
    """Resizes, keeping the aspect ratio, to cover `size / share`, then cuts `size` from the centre.

    With `fit` "squash" both sides are resized to `size / share`, whatever the aspect ratio was.
    The side that limits is `floor(size / share)`: 256 for 224 / 0.875. Halves of a pixel go where
    the kernel's own library puts them, torchvision for the antialiased ones, else big_vision;
    "crop_floor" puts them after the cut, as Hugging Face.
    """
    h, w = image.shape[:2]
    cover = [math.floor(side / share + 1e-6) for side in size]
    scale = max(cover[0] / h, cover[1] / w)
    of_torch = kernel in PILLOW
    # 1e-9: the limiting side comes out whole.
    whole = (lambda side: int(side + 1e-9)) if of_torch else round
    resized = (max(whole(h * scale), size[0]), max(whole(w * scale), size[1]))
    if fit == "squash":
        resized = (cover[0], cover[1])
    margins = [full - side for full, side in zip(resized, size, strict=True)]
    floors = not of_torch or fit == "crop_floor"
    top, left = (m // 2 if floors else round(m / 2) for m in margins)
    if resized[0] * resized[1] > max(LARGE, 8 * size[0] * size[1]):
        return resize_part(image, resized, (top, left, *size), kernel)
    image = resize(image, resized, kernel)
    return image[top : top + size[0], left : left + size[1]]


def _check_eval_crop(data: DataConfig) -> None:
    if not 0 < data.eval_crop <= 1:
        raise ValueError(f"config.data.eval_crop is {data.eval_crop}: it must be in (0, 1]")
    if data.eval_crop < LEAST_CROP:
        raise ValueError(f"config.data.eval_crop is {data.eval_crop}: give {LEAST_CROP} at least")


def _fast_dct(kernel: Kernel) -> bool:
    """The decoder of the family that a kernel comes from: TensorFlow's, or Pillow's."""
    return kernel in ("linear", "area")


def _decoded(data: bytes | np.ndarray, transform: TrainTransform | EvalTransform) -> np.ndarray:
    """The pixels (h, w, C) that a transform takes."""
    return decode(
        data,
        channels=transform.channels,
        fast_dct=_fast_dct(transform.kernel),
        orient=transform.orient,
    )
