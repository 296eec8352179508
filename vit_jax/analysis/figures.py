"""Pictures of a run: its curves, its predictions, and what its first layer learned."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis import learned
from vit_jax.models.model import Model
from vit_jax.text import printable
from vit_jax.workdir import lines as metric_lines


def curves(workdir: str | os.PathLike[str]) -> Figure:
    """Loss and held-out accuracy over the steps, from metrics.jsonl."""
    good = metric_lines.read(workdir).good
    if not good:
        raise ValueError(f"{workdir} has no metrics.jsonl: it is not a run, or has not logged yet")
    lines = [(line["step"], metric_lines.numbers(line)) for line in good]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, names in (
        (left, {"loss": "training loss", "eval_loss": "held-out loss"}),
        (right, {"eval_top1": "top-1", "eval_ema_top1": "top-1 of the average"}),
    ):
        for name, label in names.items():
            points = [(step, values[name]) for step, values in lines if name in values]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." * (len(points) < 20))
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend()
    right.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.1f}%")
    return figure


def predictions(
    images: np.ndarray,  # uint8 (N, H, W, C)
    predicted: Sequence[tuple[str, float]],
    truth: Sequence[str],
) -> Figure:
    """Images in a grid, each with its predicted class and probability, red if wrong."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.4 * columns, 1.75 * rows), layout="constrained")
    for axes, image, (name, share), true in zip(
        np.ravel(figure.subplots(rows, columns, squeeze=False)),
        images,
        predicted,
        truth,
        strict=False,
    ):
        axes.imshow(**_shown(image, whole=255))
        right = name == true
        title = [f"{name} {100 * share:.0f}%", *([] if right else [f"(is {true})"])]
        # A name may hold dollar signs, which Matplotlib would read as mathematics.
        shown = "\n".join(map(printable, title))
        color = "black" if right else "tab:red"
        axes.set_title(shown, fontsize=7, color=color, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def augmentation(
    before: np.ndarray,  # uint8 (N, H, W, C)
    after: np.ndarray,  # uint8 (draws, N, H, W, C)
    *,
    title: str,
) -> Figure:
    """A row for each image: before an augmentation, then after each random draw."""
    columns = [before, *after]
    rows = len(before)
    figure = Figure(figsize=(1.2 * len(columns), 1.2 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            grid[row, column].imshow(**_shown(image, whole=255))
            grid[row, column].set_axis_off()
        grid[0, column].set_title(f"draw {column}" if column else "before", fontsize=8)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure


def first_layer(model: Model) -> dict[str, Figure]:
    """The figures `filters` and `positions`, if the model has them."""
    drawn = {} if model.patch_kernel is None else {"filters": filters(model)}
    if model.position_table() is not None:
        drawn["positions"] = position_similarity(model)
    return drawn


def filters(model: Model) -> Figure:
    """Principal components of the patch embedding's filters. Paper, figure 7 left."""
    return _grid(learned.filters(model), title="Filters: principal components")


def position_similarity(model: Model) -> Figure:
    """A map for each patch: how similar its position is to all others. Paper, figure 7 centre."""
    maps = learned.position_similarity(model)
    rows, columns = maps.shape[:2]
    figure = Figure(figsize=(0.6 * columns + 1, 0.6 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    shown: Any = None
    for row in range(rows):
        for column in range(columns):
            shown = grid[row, column].imshow(maps[row, column], vmin=-1, vmax=1, cmap="viridis")
            grid[row, column].set_xticks([])
            grid[row, column].set_yticks([])
    figure.colorbar(shown, ax=grid, shrink=0.6, label="cosine similarity")
    figure.suptitle("Position embeddings: similarity", fontsize=9)
    return figure


def _shown(image: np.ndarray, *, whole: float) -> dict[str, Any]:
    """Arguments of `imshow`: colours for 3 channels, else their mean in grey, up to `whole`."""
    if image.shape[-1] == 3:
        return {"X": image}
    return {"X": image.mean(axis=-1), "cmap": "gray", "vmin": 0, "vmax": whole}


def _grid(images: np.ndarray, *, title: str, columns: int = 7) -> Figure:
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(0.7 * columns, 0.7 * rows + 0.4), layout="constrained")
    for axes in np.ravel(figure.subplots(rows, columns, squeeze=False)):
        axes.set_axis_off()
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow(**_shown(image, whole=1), interpolation="nearest")
    figure.suptitle(title, fontsize=9)
    return figure
