"""From an encoded image to uint8 pixels of the model's size, on the host.

What is random is an argument: `numbers`, the uniform numbers of one sample (`counter.draw`).
Everything per pixel after the crop (flip, value range, mixup) runs on the device (`augment`).
"""

import dataclasses
import io
import math
from typing import Literal

import cv2
import numpy as np
import PIL.Image
import simplejpeg

from vit_jax.config import DataConfig, Fit, Kernel

Crop = Literal["inception", "shift", "center"]

MAX_PIXELS = 89_478_485  # of a file: a small one can claim to be huge; where Pillow warns
_PILLOW = {
    "bilinear_antialias": PIL.Image.Resampling.BILINEAR,
    "bicubic_antialias": PIL.Image.Resampling.BICUBIC,
    "lanczos_antialias": PIL.Image.Resampling.LANCZOS,
    "nearest": PIL.Image.Resampling.NEAREST,
}
ATTEMPTS = 10  # of the inception crop, 4 numbers each
ASPECT = (3 / 4, 4 / 3)  # of the inception crop: width / height, relative to the target's


class BrokenImageError(ValueError):
    """The bytes are no image that can be decoded whole."""


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

    def __call__(self, image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3), float64 (NUMBERS,) in [0, 1) -> uint8 (H, W, 3)."""
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
        return decode(data, fast_dct=_fast_dct(self.kernel))

    def batch(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Every image of uint8 (N, h, w, 3) with its row of `numbers` -> uint8 (N, H, W, 3)."""
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

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> uint8 (H, W, 3)."""
        return center_crop(image, self.size, share=self.center, kernel=self.kernel, fit=self.fit)

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        return decode(data, fast_dct=_fast_dct(self.kernel))


def train_transform(data: DataConfig, *, size: tuple[int, int]) -> TrainTransform:
    """What `data` does to training images. Raises ValueError where it makes no sense."""
    low, high = data.crop_area
    if not 0 < low <= high <= 1:
        raise ValueError(f"config.data.crop_area is {data.crop_area}: give 0 < low <= high <= 1")
    if data.shift < 0:
        raise ValueError(f"config.data.shift is {data.shift}: it cannot be negative")
    _check_eval_crop(data)
    return TrainTransform(
        size=size,
        crop=data.crop,
        crop_area=data.crop_area,
        shift=data.shift,
        center=data.eval_crop,
        kernel=data.kernel,
        fit=data.eval_fit,
    )


def eval_transform(data: DataConfig, *, size: tuple[int, int]) -> EvalTransform:
    """What `data` does to images for evaluation. Raises ValueError where it makes no sense."""
    _check_eval_crop(data)
    return EvalTransform(
        size=size, center=data.eval_crop, kernel=data.eval_kernel, fit=data.eval_fit
    )


def decode(data: bytes | np.ndarray, *, fast_dct: bool = True) -> np.ndarray:
    """uint8 (H, W, 3) RGB of an encoded file, or of uint8 pixels (H, W) or (H, W, 3).

    `fast_dct`: the cosine transform of JPEGs of TensorFlow's default, else that of Pillow.
    Orientation tags are ignored, transparency is dropped. Raises BrokenImageError.
    """
    if isinstance(data, np.ndarray):
        return data if data.ndim == 3 else np.repeat(data[..., None], 3, axis=-1)
    if data[:2] == b"\xff\xd8":
        try:
            return _decode_jpeg(data, fast_dct)
        except ValueError:
            pass  # libjpeg warned: whether that is fatal is for Pillow to decide
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            _check_pixels(*image.size)
            return np.array(_to_rgb(image))
    except Exception as error:  # damaged bytes make decoders raise far more than they document
        raise BrokenImageError(f"cannot decode the image: {_reason(data, error)}") from error


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
    of_torch = kernel in _PILLOW
    # 1e-9: the limiting side comes out whole.
    whole = (lambda side: int(side + 1e-9)) if of_torch else round
    resized = (max(whole(h * scale), size[0]), max(whole(w * scale), size[1]))
    if fit == "squash":
        resized = (cover[0], cover[1])
    image = resize(image, resized, kernel)
    margins = [full - side for full, side in zip(resized, size, strict=True)]
    floors = not of_torch or fit == "crop_floor"
    top, left = (m // 2 if floors else round(m / 2) for m in margins)
    return image[top : top + size[0], left : left + size[1]]


def resize(image: np.ndarray, size: tuple[int, int], kernel: Kernel) -> np.ndarray:
    """uint8 (h, w, 3) -> uint8 (H, W, 3), pixels as areas (half-pixel centres), rounded.

    linear: two samples an axis whatever the scale, as `tf.image.resize` without antialias.
    area: the mean over each target pixel's area; it is linear where an axis grows.
    bilinear, bicubic and lanczos_antialias, nearest: those of Pillow, and so of torchvision.
    """
    if image.shape[:2] == size:
        return image
    if kernel in ("linear", "area"):
        shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
        method = cv2.INTER_AREA if kernel == "area" and shrinks else cv2.INTER_LINEAR
        return cv2.resize(image, (size[1], size[0]), interpolation=method)
    return np.asarray(PIL.Image.fromarray(image).resize((size[1], size[0]), _PILLOW[kernel]))


def _check_eval_crop(data: DataConfig) -> None:
    if not 0 < data.eval_crop <= 1:
        raise ValueError(f"config.data.eval_crop is {data.eval_crop}: it must be in (0, 1]")


def _reason(data: bytes, error: Exception) -> str:
    """What is wrong with an encoded file, without the address of the object that held it."""
    if not data:
        return "the file is empty"
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"it begins with {data[:8]!r}, which no known image does, or its header is damaged"
    return " ".join(str(error).split()) or type(error).__name__


def _fast_dct(kernel: Kernel) -> bool:
    """The decoder of the family that a kernel comes from: TensorFlow's, or Pillow's."""
    return kernel in ("linear", "area")


def _decode_jpeg(data: bytes, fast_dct: bool) -> np.ndarray:
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    _check_pixels(height, width)
    return simplejpeg.decode_jpeg(data, colorspace="RGB", fastdct=fast_dct, fastupsample=False)


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """As `image.convert`, but for what Pillow clips (16-bit grey) or warns of (palettes)."""
    if image.mode.startswith("I;16") or image.mode == "I":
        image = PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BrokenImageError(f"refused to decode {height} x {width} pixels: over {MAX_PIXELS}")
