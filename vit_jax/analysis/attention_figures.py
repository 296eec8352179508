"""Pictures of what a model attends to, and of its features, over images."""

import functools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vit_jax.analysis.panels import (
    MOST_INCHES,
    Column,
    Draw,
    draw_images,
    draw_mosaic,
    draw_of,
    in_rows,
)

BRIGHTEST = 99.5  # percentile of attention that has the brightest colour


def attention_distance(distances: np.ndarray, *, equal: float, images: int) -> Figure:
    """The mean attention distance of each head (L, H) in pixels, by the depth of its layer.

    `equal` is the distance if a patch attended equally to all patches.
    """
    layers, heads = distances.shape
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    numbers = np.arange(1, layers + 1)
    for head in range(heads):
        label = f"head {head + 1}" if heads <= 8 else None
        axes.plot(numbers, distances[:, head], "o", markersize=4.5, alpha=0.75, label=label)
    axes.plot(
        numbers, distances.mean(axis=1), color="black", linewidth=1, label="mean of the heads"
    )
    axes.axhline(
        equal, color="tab:gray", linestyle=":", label="if all patches were attended equally"
    )
    axes.set_xlabel("layer")
    axes.set_ylabel("mean attention distance (pixels)")
    axes.set_xticks(numbers[:: -(-layers // 16)])
    axes.set_ylim(0, 1.35 * max(equal, float(distances.max())))  # room for the legend
    axes.legend(fontsize=7, ncols=2, loc="upper left")
    axes.set_title(f"Mean of {images} images", fontsize=9)
    return figure


def rollout(images: np.ndarray, maps: np.ndarray, *, across: int = 4) -> Figure:
    """Pairs of an image and the same image as bright as the attention rollout (B, H, W)."""
    share = np.nan_to_num(maps / np.nanmax(maps, axis=(1, 2), keepdims=True))
    attended = np.rint(images * share[..., None]).astype(np.uint8)
    columns = in_rows([("input", images), ("attention", attended)], across=across)
    return draw_images(columns, shape=images.shape[1:3], title="Attention rollout")[0]


def class_attention(images: np.ndarray, maps: np.ndarray) -> Figure:
    """A row for each image: the image, and the attention of each head over it (B, H, h, w).

    The attention is that of the class token in one layer, as a multiple of equal attention to all
    patches. All maps have one scale.
    """
    most = float(np.nanpercentile(maps, BRIGHTEST))
    columns: list[Column] = [("input", [draw_of(image) for image in images])]
    for head in range(maps.shape[1]):
        draw: list[Draw] = [
            functools.partial(_overlay, image=image, values=of_image[head], most=most)
            for image, of_image in zip(images, maps, strict=True)
        ]
        columns.append((f"head {head + 1}", draw))
    title = "Attention of the class token in the last layer"
    figure, drawn = draw_images(columns, shape=images.shape[1:3], title=title, beside=1.1)
    _bar(figure, drawn[0][1], figure.axes)
    return figure


def layers_attention(image: np.ndarray, maps: np.ndarray) -> Figure:
    """An image, and the attention of the class token for each layer and head (L, H, rows, columns).

    The attention is a multiple of equal attention to all patches. All maps have one scale.
    """
    layers, heads, rows, columns = maps.shape
    side = min(0.75, MOST_INCHES / (layers + 3))  # width of a map
    height = max(side * heads * rows / columns, 2 * side * rows / columns) + 1.0
    figure = Figure(figsize=(side * layers + 3.4, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, side * layers))
    draw_of(image)(left)
    left.set_axis_off()
    most = float(np.percentile(maps, BRIGHTEST))
    by_head = maps.swapaxes(0, 1)
    drawn = draw_mosaic(right, by_head, labels=("head", "layer"), vmin=0, vmax=most, cmap="inferno")
    _bar(figure, drawn, [right])
    figure.suptitle("Attention of the class token", fontsize=9)
    return figure


def _bar(figure: Figure, drawn: AxesImage | None, beside: Sequence[Axes]) -> None:
    """A colour bar of attention."""
    assert drawn is not None, "every map is drawn"
    bar = figure.colorbar(drawn, ax=beside, shrink=0.7, extend="max", extendfrac=0.03)
    bar.set_label("multiple of equal attention", fontsize=7)
    bar.ax.tick_params(labelsize=7)


def feature_colours(images: np.ndarray, colours: np.ndarray, *, across: int = 4) -> Figure:
    """Pairs of an image and its features as colours (B, rows, columns, 3)."""
    columns = in_rows([("input", images), ("features", colours)], across=across)
    title = "Features: first three principal components of all images as red, green and blue"
    return draw_images(columns, shape=images.shape[1:3], title=title)[0]


def _overlay(axes: Axes, *, image: np.ndarray, values: np.ndarray, most: float) -> AxesImage:
    """Draws values (h, w) over an image in grey."""
    axes.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
    return axes.imshow(values, cmap="inferno", alpha=0.55, vmin=0, vmax=most)
