"""Which grid of patches a table of positions is of: told, or that of released models.

A file keeps rows, not their grid: 169 rows are 13x13 patches, or 12x14 and the class token. The
grid is told by the user, by the files beside the checkpoint, by the size that released models
have, or by the size that is asked for, in this order. Any other square is taken where it is the
only one, with a note; what is left is refused.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from vit_jax.checkpoints.layouts.hints import Hints, nominal_size
from vit_jax.models.positions import Grid

# Sides of the square images that released models with learned positions take: such a square is
# the grid, whatever else has as many patches.
_RELEASED = {224, 240, 256, 288, 320, 336, 378, 384, 392, 448, 480, 512, 518, 560, 640, 896, 1024}
_SMALL = {28, 32, 64}  # of small images, which many tables fit by chance: always noted


@dataclasses.dataclass(frozen=True)
class Reading:
    """A table as so many patches, after `rows` of other tokens.

    `square` says when a square of them is the grid by itself: "always", at sizes of "released"
    models alone (of which few have other tokens without positions), or "never".
    """

    patches: int
    rows: int = 0
    square: Literal["always", "released", "never"] = "always"


_Fit = tuple[Grid, Reading]


def choose(
    readings: Sequence[Reading], hints: Hints, *, pixels: Sequence[int], relative: int = 0
) -> tuple[Grid, int]:
    """The grid, and how many rows of other tokens its reading has.

    A patch covers `pixels` (height, width). `relative` are the rows of a table of relative biases
    that has to fit too, 0 without. What is assumed is added to the notes of the hints. Raises
    ValueError that lists the readings where the grid is left open.
    """

    def fitting(grid: Grid | None) -> list[_Fit]:
        if not grid or min(grid) < 1 or relative not in (0, _offsets(grid)):
            return []
        return [(grid, reading) for reading in readings if math.prod(grid) == reading.patches]

    if hints.grid and not fitting(hints.grid):
        counts = [str(reading.patches) for reading in readings]
        which = f"the checkpoint's {counts[0]} positions" if len(counts) == 1 else "that of the"
        whose = "" if len(counts) == 1 else f" checkpoint, which has {' or '.join(counts)} patches"
        raise ValueError(f"grid {_name(hints.grid)} is not {which}{whose}")
    size = nominal_size(hints)
    told = fitting(hints.grid) or fitting(_grid(size, pixels))
    if told:
        return told[0][0], told[0][1].rows
    if size and readings:
        shown = f"{size[0]}x{size[1]}"
        hints.notes.append(f"the files beside it tell images of {shown}: its positions do not fit")
    sides = {math.isqrt(reading.patches) for reading in readings}
    squares = [fit for side in sorted(sides) for fit in fitting((side, side))]
    asked = fitting(_grid(hints.wanted_size, pixels))
    what = f"{relative} relative biases" if relative else _positions(readings)
    shapes = [_described(reading, relative) for reading in readings]
    assumed = _assumed(squares, asked, pixels)
    if not assumed:
        open_ = "are no square" if len(readings) == 1 else "leave the grid of patches open"
        raise ValueError(
            f"{what} {open_}: give the checkpoint's grid (convert: --grid) or lay its config.json"
            f" beside it; they fit {'; or '.join(filter(None, shapes))}"
        )
    (grid, reading), why = assumed
    taken = f"{_name(grid)}{_others(reading)}"
    if why and "; ".join(filter(None, shapes)) != taken:
        hints.notes.append(
            f"{what} are read as {taken}, {why}. Else give the checkpoint's grid (convert: --grid):"
            f" {'; or '.join(filter(None, shapes))}"
        )
    return grid, reading.rows


def plain(count: int, hints: Hints, *, pixels: Sequence[int]) -> Grid:
    """As `choose`, of positions of patches alone."""
    return choose([Reading(count)], hints, pixels=pixels)[0]


def of_relative(rows: int, hints: Hints, *, pixels: Sequence[int]) -> Grid:
    """As `choose`, of a table of relative biases without positions beside it."""
    return choose(_by_relative(rows), hints, pixels=pixels, relative=rows)[0]


def _by_relative(rows: int) -> list[Reading]:
    sides = [((high + 1) // 2, (wide + 1) // 2) for high, wide in _pairs(rows - 3)]
    return [Reading(math.prod(side)) for side in sides if _offsets(side) == rows]


def _assumed(
    squares: Sequence[_Fit], asked: Sequence[_Fit], pixels: Sequence[int]
) -> tuple[_Fit, str] | None:
    """What is taken where no file tells the grid, and why, "" where nothing speaks against it."""
    unknown = "as no file beside it tells more"
    if len(squares) == 1:
        grid, reading = squares[0]
        sides = {side * size for side, size in zip(grid, pixels, strict=True)}
        if sides <= _RELEASED and reading.square == "always":
            return squares[0], ""
        if sides <= _RELEASED and reading.square == "released":
            return squares[0], "the size of released models"
        if len(asked) != 1 and reading.square == "always":
            return squares[0], unknown
        if len(asked) != 1 and reading.square == "released" and sides <= _SMALL:
            return squares[0], unknown
    return (asked[0], "the image_size that is asked for") if len(asked) == 1 else None


def _grid(size: Grid | None, pixels: Sequence[int]) -> Grid | None:
    return (size[0] // pixels[0], size[1] // pixels[1]) if size else None


def _offsets(grid: Grid) -> int:
    """Rows of a table of relative biases of patches, with the three of the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def _pairs(count: int) -> list[Grid]:
    """All (rows, columns) of so many, rows not more than columns, the squarest first."""
    sides = range(math.isqrt(max(count, 0)), 0, -1)
    return [(side, count // side) for side in sides if count % side == 0]


def _name(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _positions(readings: Sequence[Reading]) -> str:
    total = max(reading.patches + reading.rows * (len(readings) > 1) for reading in readings)
    return f"{total} positions"


def _described(reading: Reading, relative: int) -> str:
    """All grids of a reading, "" for none."""
    pairs = _pairs(reading.patches)
    grids = [grid for grid in pairs if relative in (0, _offsets(grid))]
    turned = " (or turned)" if any(rows != columns for rows, columns in grids) else ""
    return ", ".join(map(_name, grids)) + turned + _others(reading) if grids else ""


def _others(reading: Reading) -> str:
    """What stands before the patches, where that is a question."""
    if reading.rows:
        return f" after {reading.rows} row{'s' * (reading.rows > 1)} of other tokens"
    return "" if reading.square == "always" else " without rows of other tokens"
