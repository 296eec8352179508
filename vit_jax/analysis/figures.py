"""Pictures of a run: its curves, its predictions, its reconstructions, its augmentations."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis.contract import NoPicture
from vit_jax.analysis.panels import shown
from vit_jax.text import printable
from vit_jax.workdir import lines as metric_lines


def curves(workdir: str | os.PathLike[str]) -> Figure:
    """Loss and held-out accuracy over the steps, from metrics.jsonl."""
    good = metric_lines.read(workdir).good
    if not good:
        raise NoPicture(f"{workdir} has no metrics.jsonl: it is not a run, or has not logged yet")
    lines = [(line["step"], metric_lines.numbers(line)) for line in good]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    accuracies = {"eval_top1": "top-1", "eval_ema_top1": "top-1 of the average"}
    classifies = any("eval_top1" in values for _, values in lines)
    for axes, names in (
        (left, {"loss": "training loss", "eval_loss": "held-out loss"}),
        (right, accuracies if classifies else _measured(lines)),
    ):
        for name, label in names.items():
            points = [(step, values[name]) for step, values in lines if name in values]
            if points:
                axes.plot(*zip(*points, strict=True), label=label, marker="." * (len(points) < 20))
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend()
    if classifies:
        right.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.1f}%")
    return figure


def _measured(lines: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, str]:
    """The first metric of the evaluations that is not the loss, with its name."""
    names = (name for _, values in lines for name in values if name.startswith("eval_"))
    own = (name for name in names if "/" not in name)  # not of another evaluator
    first = next((name for name in own if name not in ("eval_loss", "eval_count")), None)
    return {first: first.removeprefix("eval_")} if first else {}


def predictions(
    images: np.ndarray,  # uint8 (N, H, W, C)
    predicted: Sequence[tuple[str, float]],
    truth: Sequence[str],
) -> Figure:
    """Images in a grid, each with its predicted class and probability, red if wrong.

    The truth is "" for an image whose class is unknown.
    """
    titles = []
    for (name, share), true in zip(predicted, truth, strict=True):
        right = true in ("", name)
        lines = (f"{name} {100 * share:.0f}%", *(() if right else (f"(is {true})",)))
        titles.append((lines, "black" if right else "tab:red"))
    return _titled(images, titles)


def batch(images: np.ndarray, labels: Sequence[Sequence[str]]) -> Figure:
    """Images uint8 (N, H, W, C) of a batch in a grid, each with the lines of its label above."""
    return _titled(images, [(lines, "black") for lines in labels])


def _titled(images: np.ndarray, titles: Sequence[tuple[Sequence[str], str]]) -> Figure:
    """Images uint8 (N, H, W, C) in a grid, each with lines above it and their colour."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.4 * columns, 1.75 * rows), layout="constrained")
    grid = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, image, (lines, color) in zip(grid, images, titles, strict=False):
        axes.imshow(**shown(image, whole=255))
        # A name may hold dollar signs, which Matplotlib would read as mathematics.
        text = "\n".join(map(printable, lines))
        axes.set_title(text, fontsize=7, color=color, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def reconstructions(
    images: np.ndarray,  # uint8 (N, H, W, C)
    rebuilt: np.ndarray,  # in [0, 1], (N, H, W, C)
) -> Figure:
    """Pairs of rows: images, and below them the same images rebuilt from their visual tokens."""
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.2 * columns, 2.4 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for number, (before, after) in enumerate(zip(images, rebuilt, strict=True)):
        row, column = divmod(number, columns)
        grid[2 * row, column].imshow(**shown(before, whole=255))
        grid[2 * row + 1, column].imshow(**shown(after, whole=1))
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def codebook(counts: np.ndarray, *, images: int) -> Figure:
    """How often each visual token was used (V,), the most frequent first."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
    axes.fill_between(np.arange(len(shares)), shares, step="mid")
    axes.axhline(1 / len(shares), color="tab:gray", linestyle=":", label="if all were as frequent")
    axes.set_xlabel("visual tokens, the most frequent first")
    axes.set_ylabel("share")
    axes.legend()
    number = int((counts > 0).sum())
    axes.set_title(f"{number} of {len(counts)} tokens are used in {images} images", fontsize=9)
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
            grid[row, column].imshow(**shown(image, whole=255))
            grid[row, column].set_axis_off()
        grid[0, column].set_title(f"draw {column}" if column else "before", fontsize=8)
    figure.suptitle(title, fontsize=9, parse_math=False)
    return figure
