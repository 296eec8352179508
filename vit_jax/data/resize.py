"""Resizing on the host: a whole image, or only the part of it that is kept."""

import numpy as np
import PIL.Image

from vit_jax.data.opencv import cv2
from vit_jax.models.preprocessing import Interpolation

PILLOW = {
    "bilinear_antialias": PIL.Image.Resampling.BILINEAR,
    "bicubic_antialias": PIL.Image.Resampling.BICUBIC,
    "lanczos_antialias": PIL.Image.Resampling.LANCZOS,
    "nearest": PIL.Image.Resampling.NEAREST,
}


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """uint8 (h, w, C) -> uint8 (H, W, C), pixels as areas (half-pixel centres), rounded.

    linear: two samples per axis at every scale, like `tf.image.resize` without antialias.
    area: the mean over the area of each target pixel; the same as linear if an axis grows.
    bilinear, bicubic and lanczos_antialias, nearest: like Pillow, and so like torchvision.
    """
    if image.shape[:2] == size:
        return image
    if image.shape[2] != 3:  # one channel at a time: Pillow would read four as RGBA
        return np.stack(
            [_resize(plane, size, interpolation) for plane in np.moveaxis(image, 2, 0)], 2
        )
    return _resize(image, size, interpolation)


def resize_part(
    image: np.ndarray,
    size: tuple[int, int],
    part: tuple[int, int, int, int],
    interpolation: Interpolation,
) -> np.ndarray:
    """The part (top, left, H, W) of `resize(image, size, interpolation)`, up to rounding.

    This needs memory only for the part and for the pixels it depends on. A line of a million
    pixels, resized as a whole to the height of a model, would take hundreds of gigabytes.
    """
    top, left, height, width = part
    if interpolation not in PILLOW:
        shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
        area = interpolation == "area" and shrinks
        rows, of_rows = _taps(image.shape[0], size[0], range(top, top + height), area=area)
        columns, of_columns = _taps(image.shape[1], size[1], range(left, left + width), area=area)
        region = image[rows, columns].astype(np.float32)
        mean = np.einsum("yh,hwc,xw->yxc", of_rows, region, of_columns, optimize=True)
        return np.rint(mean).clip(0, 255).astype(np.uint8)
    y, x = image.shape[0] / size[0], image.shape[1] / size[1]  # source pixels per target pixel
    corners = (left * x, top * y, (left + width) * x, (top + height) * y)
    limits = (image.shape[1], image.shape[0]) * 2
    box = tuple(min(corner, limit) for corner, limit in zip(corners, limits, strict=True))
    planes = [image] if image.shape[2] == 3 else list(np.moveaxis(image, 2, 0))
    parts = [
        np.asarray(
            PIL.Image.fromarray(plane).resize((width, height), PILLOW[interpolation], box=box)
        )
        for plane in planes
    ]
    return parts[0] if image.shape[2] == 3 else np.stack(parts, axis=2)


def _resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """Like `resize`, for (h, w, 3) or (h, w)."""
    if interpolation in ("linear", "area"):
        shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
        method = cv2.INTER_AREA if interpolation == "area" and shrinks else cv2.INTER_LINEAR
        image = np.ascontiguousarray(image)
        return cv2.resize(image, (size[1], size[0]), interpolation=method)
    return np.asarray(PIL.Image.fromarray(image).resize((size[1], size[0]), PILLOW[interpolation]))


def _taps(source: int, target: int, kept: range, *, area: bool) -> tuple[slice, np.ndarray]:
    """The source pixels that the `kept` target pixels of an axis depend on, and their weights.

    The axis is resized from `source` to `target` pixels. Weights are float32 (len(kept), length of
    the slice). With `area` they are the shares of source pixels within each target pixel, else the
    weights of the two nearest centres.
    """
    scale = source / target
    index = np.array(kept, np.float64)[:, None]
    if area:
        low, high = index * scale, (index + 1) * scale
    else:
        center = np.clip((index + 0.5) * scale - 0.5, 0, source - 1)
        low, high = center, center
    read = slice(int(low.min()), min(int(np.ceil(high.max())) + 1, source))
    pixel = np.arange(read.start, read.stop)
    if area:
        weights = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / scale
    else:
        weights = np.clip(1 - np.abs(center - pixel), 0, None)
    return read, weights.astype(np.float32)
