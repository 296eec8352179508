"""How pictures show images and many small maps."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

MOST_INCHES = 11.0  # width and height of a picture of many maps
LEAST_INCHES = 3.2


def shown(image: np.ndarray, *, whole: float) -> dict[str, Any]:
    """Arguments of `imshow`: colours for 3 channels, else their mean in grey, up to `whole`."""
    if image.shape[-1] == 3:
        return {"X": image}
    return {"X": image.mean(axis=-1), "cmap": "gray", "vmin": 0, "vmax": whole}


def inches(number: float) -> float:
    """A side of a picture, in the range that a page can show."""
    return min(max(number, LEAST_INCHES), MOST_INCHES)


def mosaic(maps: np.ndarray) -> np.ndarray:
    """Maps (R, C, h, w) in one array, side by side; NaN between them, one value wide or wider."""
    rows, columns, height, width = maps.shape
    gap = max(1, round(min(height, width) / 14))
    padded = np.full((rows, columns, height + gap, width + gap), np.nan)
    padded[:, :, :height, :width] = maps
    joined = padded.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap))
    return joined[:-gap, :-gap]


def draw_mosaic(
    axes: Axes, maps: np.ndarray, *, labels: tuple[str, str], **colours: Any
) -> AxesImage:
    """Draws maps (R, C, h, w) with the numbers of their rows and columns, counted from 1.

    `labels` name rows and columns; `colours` are arguments of `imshow`. All maps have one scale.
    """
    whole = mosaic(maps)
    for axis, label, count, size in (
        (axes.yaxis, labels[0], maps.shape[0], whole.shape[0]),
        (axes.xaxis, labels[1], maps.shape[1], whole.shape[1]),
    ):
        every = -(-count // 16)  # more numbers would overlap
        numbers = range(1, count + 1, every)
        axis.set_ticks([(n - 0.5) * size / count - 0.5 for n in numbers], list(map(str, numbers)))
        axis.set_label_text(label, fontsize=8)
        axis.set_tick_params(labelsize=7, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(whole, **colours)


Draw = Callable[[Axes], AxesImage | None]
Column = tuple[str, list[Draw]]  # a title, and a function for each row


def draw_of(image: np.ndarray | None) -> Draw:
    """A function that draws an image, uint8 or in [0, 1]; None draws nothing."""

    def draw(axes: Axes) -> AxesImage | None:
        if image is None:
            return None
        whole = 255 if image.dtype == np.uint8 else 1
        return axes.imshow(**shown(image, whole=whole), interpolation="nearest")

    return draw


def in_rows(columns: Sequence[tuple[str, np.ndarray]], *, across: int) -> list[Column]:
    """Columns of a picture that shows `across` groups of images in a row, then the next row.

    Each of the `columns` is a title and images (N, H, W, C), one for each group. Places without an
    image are empty.
    """
    count = len(columns[0][1])
    across = min(across, count)
    rows = -(-count // across)
    placed: list[Column] = []
    for first in range(across):
        for name, images in columns:
            there = [images[i] if i < count else None for i in range(first, rows * across, across)]
            placed.append((name, [draw_of(image) for image in there]))
    return placed


def draw_images(
    columns: Sequence[Column], *, shape: tuple[int, ...], title: str, beside: float = 0.0
) -> tuple[Figure, list[list[AxesImage | None]]]:
    """A grid of images, and what was drawn in each row.

    The functions of a column draw into the axes of their row. `shape` begins with the height and
    width of an image, and `beside` are inches that are left for a colour bar.
    """
    rows = len(columns[0][1])
    side = min(1.6, MOST_INCHES / len(columns))
    height = side * shape[0] / shape[1]
    across = max(side * len(columns) + beside, LEAST_INCHES)
    size = (across, min((height + 0.05) * rows + 0.6, 4 * MOST_INCHES))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, len(columns), squeeze=False)
    drawn = [
        [draw[row](axes) for axes, (_, draw) in zip(grid[row], columns, strict=True)]
        for row in range(rows)
    ]
    for axes in figure.axes:
        axes.set_axis_off()
    for axes, (name, _) in zip(grid[0], columns, strict=True):
        axes.set_title(name, fontsize=8, parse_math=False)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure, drawn
