"""Operations on the pixel values of one image, with the bits of Pillow.

All take and return uint8 (H, W, C) with 1 or 3 channels (grey, RGB). Pillow stays the reference:
these are its integer and float32 formulas, applied by tables of 256 values where possible.
"""

import math

import numpy as np

from vit_jax.data.opencv import cv2

_VALUES = np.arange(256)
# Pillow's weights of red, green and blue in grey, times 2**16, and a half.
_GREY = np.array([[19595, 38470, 7471, 2**15]], np.float32)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
_ONE = np.ones(1, np.float32)
_BLOCK = 24_000  # values


def invert(image: np.ndarray) -> np.ndarray:
    return 255 - image


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the values that are at least `threshold`."""
    return mapped(image, np.where(threshold > _VALUES, _VALUES, 255 - _VALUES))


def solarize_add(image: np.ndarray, added: int, *, threshold: int = 128) -> np.ndarray:
    """Adds to the values below `threshold`."""
    brighter = np.minimum(_VALUES + added, 255)
    return mapped(image, np.where(threshold > _VALUES, brighter, _VALUES))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest `bits` of each value; with 0 bits the image is black."""
    return image if bits >= 8 else image & np.uint8(256 - 2 ** (8 - bits) & 255)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to 0 ... 255."""
    tables = []
    for counts in histograms(image):
        seen = np.flatnonzero(counts)
        low, high = int(seen[0]), int(seen[-1])
        scale = 255.0 / (high - low) if high > low else 1.0
        offset = -low * scale if high > low else 0.0
        tables.append((_VALUES * scale + offset).astype(int).clip(0, 255))
    return mapped(image, *tables)


def equalize(image: np.ndarray) -> np.ndarray:
    """Makes all values of each channel about equally frequent."""
    return mapped(image, *map(_equalizing, histograms(image)))


def _equalizing(counts: np.ndarray) -> np.ndarray:
    seen = np.flatnonzero(counts)
    step = int(counts.sum() - counts[seen[-1]]) // 255
    if len(seen) <= 1 or not step:
        return _VALUES
    below = np.cumsum(counts) - counts
    return np.minimum((below + step // 2) // step, 255)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """`factor` 0 gives black, 1 the image, more a brighter image."""
    return mapped(image, blended(np.zeros(1, np.uint8), _VALUES.astype(np.uint8), factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """`factor` 0 gives the mean grey, 1 the image, more an image with more contrast."""
    plane = grey(image)
    mean = int(cv2.sumElems(plane)[0] / plane.size + 0.5)
    return contrast_around(image, factor, level=mean)


def contrast_around(image: np.ndarray, factor: float, *, level: int) -> np.ndarray:
    """`factor` 0 gives the grey `level`, 1 the image, more an image with more contrast."""
    return mapped(image, blended(np.array([level], np.uint8), _VALUES.astype(np.uint8), factor))


def colour(image: np.ndarray, factor: float) -> np.ndarray:
    """`factor` 0 gives grey, 1 the image, more an image with stronger colours."""
    if image.shape[2] == 1:
        return image
    return blended(cv2.merge([grey(image)] * 3), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """`factor` 0 gives a smooth image, 1 the image, more a sharper image."""
    return blended(smooth(image), image, factor)


def smooth(image: np.ndarray) -> np.ndarray:
    """Weighted means of 3x3 pixels; the pixels of the edges stay."""
    found = image.copy()
    if min(image.shape[:2]) > 2:
        means = cv2.filter2D(np.ascontiguousarray(image), -1, _SMOOTH).reshape(image.shape)
        found[1:-1, 1:-1] = means[1:-1, 1:-1]
    return found


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W)."""
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[:, :, 0])
    # The sums are less than 2**24, so float32 holds them exactly.
    sums = cv2.transform(image.astype(np.float32), _GREY)
    return (sums * np.float32(2**-16)).astype(np.uint8)


def grey_image(image: np.ndarray) -> np.ndarray:
    """The grey image with the number of channels of `image`."""
    return image if image.shape[2] == 1 else cv2.merge([grey(image)] * 3)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Like Pillow's GaussianBlur: three box filters, each with fractional pixels at its ends."""
    variance = sigma * sigma / 3
    whole = int((np.sqrt(12 * variance + 1) - 1) / 2)
    odd = 2 * whole + 1
    ends = odd * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    kernel = np.ones(odd + 2, np.float32)
    kernel[[0, -1]] = ends
    kernel /= kernel.sum()
    found = np.ascontiguousarray(image)
    for along_x, along_y in ((kernel, _ONE), (_ONE, kernel)):
        for _ in range(3):
            found = cv2.sepFilter2D(found, -1, along_x, along_y, borderType=cv2.BORDER_REPLICATE)
    return found.reshape(image.shape)


def blended(first: np.ndarray, second: np.ndarray, factor: float) -> np.ndarray:
    """Returns first + factor * (second - first) in float32, cut to integers, as Pillow does."""
    # A factor of 1 or 0 needs no case of its own: the result is exact.
    found = np.empty(second.shape, np.uint8)
    for rows in blocks(second.shape):
        start = first[rows] if len(first) > 1 else first
        mixed = np.subtract(second[rows], start, dtype=np.float32)
        mixed *= np.float32(factor)
        mixed += start
        found[rows] = np.clip(mixed, 0, 255, out=mixed)
    return found


def blocks(shape: tuple[int, ...]) -> list[slice]:
    """Slices of lines that cover an array, each with at most `_BLOCK` values or one line.

    Float32 copies of a whole image would be large enough that malloc returns their memory to the
    system each time. This makes calculations several times slower.
    """
    lines = max(1, _BLOCK // math.prod(shape[1:]))
    return [slice(start, start + lines) for start in range(0, shape[0], lines)]


def mapped(image: np.ndarray, *tables: np.ndarray) -> np.ndarray:
    """Maps each value by one table of 256 values for all channels, or one for each channel."""
    if len(tables) == 1:
        table = tables[0].astype(np.uint8)
    else:
        table = np.stack(tables, -1)[:, None].astype(np.uint8)  # (256, 1, C)
    return cv2.LUT(np.ascontiguousarray(image), table).reshape(image.shape)


def histograms(image: np.ndarray) -> list[np.ndarray]:
    """The counts, int64 (256,), of each channel."""
    planes = cv2.split(np.ascontiguousarray(image))
    return [
        cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        for plane in planes
    ]
