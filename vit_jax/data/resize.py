"""Resizing on the host: a whole image, or only the part of it that is kept."""

import cv2
import numpy as np
import PIL.Image

from vit_jax.models.preprocessing import Interpolation

PILLOW = {
    "bilinear_antialias": PIL.Image.Resampling.BILINEAR,
    "bicubic_antialias": PIL.Image.Resampling.BICUBIC,
    "lanczos_antialias": PIL.Image.Resampling.LANCZOS,
    "nearest": PIL.Image.Resampling.NEAREST,
}


def resize(image: np.ndarray, size: tuple[int, int], interpolation: Interpolation) -> np.ndarray:
    """uint8 (h, w, C) -> uint8 (H, W, C), pixels as areas (half-pixel centres), rounded.

    linear: two samples an axis whatever the scale, as `tf.image.resize` without antialias.
    area: the mean over each target pixel's area; it is linear where an axis grows.
    bilinear, bicubic and lanczos_antialias, nearest: those of Pillow, and so of torchvision.
    """
    if image.shape[:2] == size:
        return image
    if image.shape[2] != 3:  # each by itself: Pillow takes four for colours and transparency
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
    """The part (top, left, H, W) of `resize(image, size, interpolation)`, equal but for rounding.

    Its memory is that of the part and of what it is made from: a line of a million pixels would
    be hundreds of gigabytes at the height of a model.
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
    y, x = image.shape[0] / size[0], image.shape[1] / size[1]  # source pixels a pixel
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
    """As `resize`, of (h, w, 3) or (h, w)."""
    if interpolation in ("linear", "area"):
        shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
        method = cv2.INTER_AREA if interpolation == "area" and shrinks else cv2.INTER_LINEAR
        image = np.ascontiguousarray(image)
        return cv2.resize(image, (size[1], size[0]), interpolation=method)
    return np.asarray(PIL.Image.fromarray(image).resize((size[1], size[0]), PILLOW[interpolation]))


def _taps(source: int, target: int, kept: range, *, area: bool) -> tuple[slice, np.ndarray]:
    """Of an axis resized from `source` to `target`: what the kept places read, and its weights.

    Weights are float32 (len(kept), length of the slice): shares of the source's pixels within the
    target's (`area`), or those of the two nearest centres.
    """
    scale = source / target
    place = np.array(kept, np.float64)[:, None]
    if area:
        low, high = place * scale, (place + 1) * scale
    else:
        center = np.clip((place + 0.5) * scale - 0.5, 0, source - 1)
        low, high = center, center
    read = slice(int(low.min()), min(int(np.ceil(high.max())) + 1, source))
    pixel = np.arange(read.start, read.stop)
    if area:
        weights = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) / scale
    else:
        weights = np.clip(1 - np.abs(center - pixel), 0, None)
    return read, weights.astype(np.float32)
