"""Pictures of what a model learned before it sees an image: filters, positions, biases."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis.panels import draw_mosaic, inches, shown

MIDDLE = 0.5  # inches of a map in a mosaic


def filters(images: np.ndarray, *, columns: int = 7) -> Figure:
    """Principal components of filters, in [0, 1] (N, h, w, C)."""
    rows = -(-len(images) // columns)
    height = 0.75 * images.shape[1] / images.shape[2]
    figure = Figure(figsize=(0.75 * columns, height * rows + 0.4), layout="constrained")
    for axes in np.ravel(figure.subplots(rows, columns, squeeze=False)):
        axes.set_axis_off()
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow(**shown(image, whole=1), interpolation="nearest")
    figure.suptitle(f"Filters: first {len(images)} principal components", fontsize=9)
    return figure


def position_similarity(maps: np.ndarray) -> Figure:
    """A map (rows, columns) for each patch: how similar its position is to all others."""
    rows, columns = maps.shape[:2]
    # Maps are as many as their values, so a picture of many patches has smaller maps.
    scale = min(MIDDLE, inches(MIDDLE * max(rows, columns)) / max(rows, columns))
    size = (inches(scale * columns + 2.0), inches(scale * rows + 0.9))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = draw_mosaic(
        axes, maps, labels=("row of the patch", "column of the patch"), vmin=-1, vmax=1
    )
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
    bar.set_label("cosine similarity", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle("Position embeddings: similarity to all patches", fontsize=9)
    return figure


def relative_biases(tables: Mapping[str, np.ndarray]) -> Figure:
    """A map of biases for each layer and head of each part; one scale for all.

    Each table is (layers, heads, 2 rows - 1, 2 columns - 1).
    """
    most = max(float(np.abs(table).max()) for table in tables.values()) or 1.0
    layers = [table.shape[0] for table in tables.values()]
    widest = max(table.shape[1] for table in tables.values())
    size = (inches(MIDDLE * widest + 1.4), inches(MIDDLE * sum(layers) + 0.7 * len(layers)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(tables), 1, squeeze=False, height_ratios=layers)[:, 0]
    for axes, (part, table) in zip(grid, tables.items(), strict=True):
        drawn = draw_mosaic(
            axes, table, labels=("layer", "head"), vmin=-most, vmax=most, cmap="RdBu_r"
        )
        axes.set_title(part, fontsize=8, loc="left")
        axes.set_anchor("W")  # parts with fewer heads begin at the left too
    bar = figure.colorbar(drawn, ax=grid, shrink=0.8)
    bar.set_label("bias of the attention logit", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle("Relative position biases by the offset of the key from the query", fontsize=9)
    return figure
