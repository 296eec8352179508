"""Pictures of images: predictions, mistakes, reconstructions, augmentations."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from vit_jax.analysis.panels import draw_images, in_rows, shown
from vit_jax.text import printable

MOST_NAMES = 40  # classes whose names fit beside a matrix
MOST_NUMBERS = 20  # classes whose counts fit into the cells
LONGEST = 24  # letters of a class name


def predictions(
    images: np.ndarray,  # uint8 (N, H, W, C)
    predicted: Sequence[tuple[str, float]],
    truth: Sequence[str],
    title: str = "",
) -> Figure:
    """Images in a grid, each with its predicted class and probability, red if wrong.

    The truth is "" for an image whose class is unknown.
    """
    titles: list[tuple[list[str], str]] = []
    for (name, share), true in zip(predicted, truth, strict=True):
        right = true in ("", name)
        lines = [f"{_shortened(name)} {100 * share:.0f}%"]
        lines += [] if right else [f"(is {_shortened(true)})"]
        titles.append((lines, "black" if right else "tab:red"))
    return _titled(images, titles, above=title)


def batch(images: np.ndarray, labels: Sequence[Sequence[str]]) -> Figure:
    """Images uint8 (N, H, W, C) of a batch in a grid, each with the lines of its label above."""
    return _titled(images, [(lines, "black") for lines in labels])


def _titled(
    images: np.ndarray, titles: Sequence[tuple[Sequence[str], str]], *, above: str = ""
) -> Figure:
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
    if above:
        figure.suptitle(above, fontsize=9)
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def confusion(counts: np.ndarray, names: Sequence[str], *, note: str) -> Figure:
    """How images of each class (rows) are predicted (columns): counts (K, K) as shares of a row.

    A class without images that no image is predicted as is left out.
    """
    there = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, names = counts[np.ix_(there, there)], [names[int(i)] for i in there]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    classes = len(names)
    side = min(max(0.32 * classes, 3.0), 10.0)
    figure = Figure(figsize=(side + 2.2, side + 1.2), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    many = classes > MOST_NAMES
    labels = [] if many else [printable(_shortened(name)) for name in names]
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(range(len(labels)), labels, fontsize=7, parse_math=False)
    if classes <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            if count:
                axes.annotate(
                    str(count), (column, row), color=color, fontsize=6, ha="center", va="center"
                )
    which = f" ({classes} classes, in the order of the model)" if many else ""
    axes.set_xlabel(f"predicted class{which}")
    axes.set_ylabel(f"true class{which}")
    axes.set_title(note, fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.7)
    bar.set_label("share of the images of the class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
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


def restored(
    images: np.ndarray,  # in [0, 1], (N, H, W, C)
    seen: np.ndarray,  # the same; NaN in hidden patches
    predicted: np.ndarray,  # in [0, 1], (N, H, W, C)
    *,
    note: str,
    across: int = 3,
) -> Figure:
    """Images, what a model saw of them, and what it predicted, `across` images in a row."""
    visible = np.where(np.isnan(seen), 0.5, seen)
    columns = in_rows(
        [("image", images), ("seen", visible), ("predicted", predicted)], across=across
    )
    title = f"Hidden patches, predicted from what was seen{note and f': {note}'}"
    return draw_images(columns, shape=images.shape[1:3], title=title)[0]


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


def table(rows: Sequence[Sequence[str]], *, title: str) -> Figure:
    """A table; its first row is the head."""
    cells = [[printable(_shortened(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    figure = Figure(figsize=(0.09 * sum(widths) + 0.3 * len(widths), 0.3 * len(rows) + 0.5))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98 - 0.4 / (0.3 * len(rows) + 0.5)))
    axes.set_axis_off()
    shares = [(width + 3) / sum(width + 3 for width in widths) for width in widths]
    drawn = axes.table(
        cells[1:], colLabels=cells[0], colWidths=shares, bbox=Bbox.unit(), colLoc="right"
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    for (row, _), cell in drawn.get_celld().items():
        cell.visible_edges = "B"
        cell.get_text().set_parse_math(False)
        cell.get_text().set_fontweight("bold" if row == 0 else "normal")
    figure.suptitle(title, fontsize=9)
    return figure
