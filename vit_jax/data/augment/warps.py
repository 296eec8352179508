"""Rotation, shearing and translation of one image, as Pillow computes them.

All take and return uint8 (H, W, C) with 1 or 3 channels. A pixel that shows a place outside of the
image gets the fill colour; near the edges, pixels are repeated. Values differ from Pillow's by at
most one grey level with OpenCV 5. OpenCV 4 rounds the places of bilinear shears and rotations to
1/32 pixel, so values differ more there.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import PIL.Image

from vit_jax.data.augment.operations import blocks
from vit_jax.data.opencv import cv2

WarpInterpolation = Literal["bilinear", "bicubic"]
Fill = Sequence[int]  # a value for each channel

_ONE = np.ones(1, np.float32)
_EXTRA = np.float32(2**-8)  # added before the fraction is cut: an integer may be a little too small


def shear_x(
    image: np.ndarray, share: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    """Moves the line at height y by `share` * y to the left."""
    moves = share * (np.arange(len(image)) + 0.5)
    if interpolation == "bicubic":  # OpenCV has another cubic kernel
        return _moved(image, moves, fill=fill)
    width = image.shape[1]
    found = _linear(image, np.array([[1, share, share / 2], [0, 1, 0]]))
    place = (np.arange(width) + 0.5) + moves[:, None]
    return _filled(found, (place < 0) | (place >= width), fill)


def shear_y(
    image: np.ndarray, share: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    """Moves the column at x by `share` * x up."""
    return _turned(shear_x(_turned(image), share, fill=fill, interpolation=interpolation))


def translate_x(
    image: np.ndarray, pixels: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    """Moves the image to the left."""
    return _turned(translate_y(_turned(image), pixels, fill=fill, interpolation=interpolation))


def translate_y(
    image: np.ndarray, pixels: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    """Moves the image up."""
    height, width, channels = image.shape
    found = cv2.merge([np.full((height, width), value, np.uint8) for value in fill])
    found = found.reshape(image.shape)
    # The pixels whose place is inside of the image.
    first = max(0, math.ceil(-pixels - 0.5))
    stop = min(height, math.ceil(height - 0.5 - pixels))
    if first < stop:
        whole = math.floor(pixels)
        taps = _taps(np.array(pixels - whole, np.float32), interpolation)
        wide = cv2.copyMakeBorder(image, 1, 1, 0, 0, cv2.BORDER_REPLICATE)
        filtered = cv2.sepFilter2D(
            wide, -1, _ONE, taps, anchor=(0, 1), borderType=cv2.BORDER_REPLICATE
        ).reshape(wide.shape[0], width, channels)
        found[first:stop] = filtered[first + whole + 1 : stop + whole + 1]
    return found


def rotate(
    image: np.ndarray, degrees: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    """Turns the image counter-clockwise around its centre."""
    if degrees % 90 == 0 or interpolation == "bicubic":  # OpenCV has another cubic kernel
        return _rotated_by_pillow(image, degrees, fill=fill, interpolation=interpolation)
    height, width = image.shape[:2]
    angle = math.radians(degrees % 360)
    # Rounded and added in Pillow's order: with 30 degrees, pixels are exactly at the edge of narrow
    # images.
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    centre = np.array([width / 2, height / 2])
    turn = np.array([[cosine, -sine], [sine, cosine]])  # from a place of the result to the image's
    start = (-turn[:, 0] * centre[0] - turn[:, 1] * centre[1]) + centre
    of_indices = start + turn.sum(1) / 2 - 0.5  # from the index of a pixel to an index
    found = _linear(image, np.column_stack([turn, of_indices]))
    columns, rows = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    outside = np.zeros((height, width), bool)
    for axis, length in enumerate((width, height)):
        place = (columns * turn[axis, 0] + rows * turn[axis, 1]) + start[axis]
        outside |= (place < 0) | (place >= length)
    return _filled(found, outside, fill)


def _linear(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The image at the places that `matrix` gives for indices of pixels."""
    return cv2.warpAffine(
        image,
        matrix,
        (image.shape[1], image.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).reshape(image.shape)


def _moved(image: np.ndarray, moves: np.ndarray, *, fill: Fill) -> np.ndarray:
    """Moves each line of the image to the left, by the pixels in `moves` (H,); bicubic."""
    height, width, channels = image.shape
    moves = moves.clip(-width - 1, width + 1)  # further ones show the fill colour only
    whole = np.floor(moves).astype(int)
    taps = _taps((moves - whole).astype(np.float32), "bicubic")
    margin = int(np.abs(whole).max()) + 2
    wide = cv2.copyMakeBorder(image, 0, 0, margin, margin, cv2.BORDER_REPLICATE)
    # The window of a line begins at the pixel of the first tap of its first pixel.
    length = (width + 3) * channels
    windows = np.lib.stride_tricks.sliding_window_view(wide.reshape(-1), length)
    first = (np.arange(height) * (width + 2 * margin) + whole + margin - 1) * channels
    found = np.empty(image.shape, np.uint8)
    for rows in blocks(image.shape):
        lines = windows[first[rows]].astype(np.float32)
        mixed = np.full((len(lines), width * channels), _EXTRA)
        for tap, weights in enumerate(taps):
            part = lines[:, tap * channels : (tap + width) * channels]
            mixed += part * weights[rows, None]
        found[rows] = np.clip(mixed, 0, 255, out=mixed).reshape(-1, width, channels)
    place = (np.arange(width) + 0.5) + moves[:, None]
    return _filled(found, (place < 0) | (place >= width), fill)


def _taps(fraction: np.ndarray, interpolation: WarpInterpolation) -> np.ndarray:
    """The weights of the pixels -1, 0, 1 and 2, (4, ...), for fractions of a pixel."""
    d, e = fraction, 1 - fraction
    if interpolation == "bilinear":
        return np.stack([0 * d, e, d, 0 * d])
    # The cubic kernel with a = -1, which Pillow has in transforms (in `resize` a is -0.5).
    return np.stack([-d * e * e, e * (1 + d - d * d), d * (1 + e - e * e), -d * d * e])


def _filled(image: np.ndarray, where: np.ndarray, fill: Fill) -> np.ndarray:
    """The image with the fill colour at the pixels of a mask, bool (H, W)."""
    plain = cv2.merge([np.full(where.shape, value, np.uint8) for value in fill])
    return cv2.copyTo(plain, where.view(np.uint8), image).reshape(image.shape)


def _turned(image: np.ndarray) -> np.ndarray:
    """(H, W, C) -> (W, H, C)."""
    return cv2.transpose(image).reshape(image.shape[1], image.shape[0], image.shape[2])


def _rotated_by_pillow(
    image: np.ndarray, degrees: float, *, fill: Fill, interpolation: WarpInterpolation
) -> np.ndarray:
    grey = image.shape[2] == 1
    method = {
        "bilinear": PIL.Image.Resampling.BILINEAR,
        "bicubic": PIL.Image.Resampling.BICUBIC,
    }[interpolation]
    turned = PIL.Image.fromarray(image[:, :, 0] if grey else image).rotate(
        degrees, resample=method, fillcolor=fill[0] if grey else tuple(fill)
    )
    return np.array(turned).reshape(image.shape)
