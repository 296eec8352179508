"""Chooses the grid of patches of a table of positions.

A file has the rows of the table, but not the grid: 169 rows may be 13x13 patches, or 12x14 patches
and a class token. The grid is taken from the first of these that fits: the user's argument, the
files beside the checkpoint, a square of a size that released models have, the image size that the
model is loaded for. Another square grid is assumed, with a note, if only one is possible. Otherwise
the file is refused.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from vit_jax.checkpoints.layouts.hints import Hints, nominal_size
from vit_jax.models.positions import Grid

# Sides of the square images of released models with learned positions. A square grid for such an
# image is preferred to all other grids with as many patches.
_RELEASED = {224, 240, 256, 288, 320, 336, 378, 384, 392, 448, 480, 512, 518, 560, 640, 896, 1024}
_SMALL = {28, 32, 64}  # sides of small images: many tables fit by chance, so a note is added


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read a table: `rows` of other tokens, then `patches` rows of patches.

    `square` says when a square grid of the patches is assumed: "always", only at the sizes of
    "released" models (few of which have tokens without positions), or "never".
    """

    patches: int
    rows: int = 0
    square: Literal["always", "released", "never"] = "always"


_Fit = tuple[Grid, Reading]


def choose(
    readings: Sequence[Reading], hints: Hints, *, pixels: Sequence[int], relative: int = 0
) -> tuple[Grid, int]:
    """The grid, and the number of rows of other tokens in the reading that fits it.

    A patch covers `pixels` (height, width). `relative` is the number of rows of a table of relative
    biases that has to fit too, 0 without one. Assumptions are added to `hints.notes`. Raises
    ValueError that lists the readings where the grid stays open.
    """

    def fitting(grid: Grid | None) -> list[_Fit]:
        if not grid or min(grid) < 1 or relative not in (0, _offsets(grid)):
            return []
        return [(grid, reading) for reading in readings if math.prod(grid) == reading.patches]

    if hints.grid and not fitting(hints.grid):
        counts = " or ".join(str(reading.patches) for reading in readings)
        raise ValueError(
            f"grid {_name(hints.grid)} does not fit the checkpoint's positions, which are of"
            f" {counts} patches"
        )
    size = nominal_size(hints)
    given = fitting(hints.grid) or fitting(_grid(size, pixels))
    if given:
        return given[0][0], given[0][1].rows
    if size and readings:
        shown = f"{size[0]}x{size[1]}"
        hints.notes.append(
            f"its positions do not fit the image size {shown} of the files beside it"
        )
    sides = {math.isqrt(reading.patches) for reading in readings}
    squares = [fit for side in sorted(sides) for fit in fitting((side, side))]
    asked = fitting(_grid(hints.wanted_size, pixels))
    what = f"{relative} relative biases" if relative else _positions(readings)
    shapes = [_described(reading, relative) for reading in readings]
    assumed = _assumed(squares, asked, pixels)
    if not assumed:
        problem = "are not a square" if len(readings) == 1 else "leave the grid of patches open"
        raise ValueError(
            f"{what} {problem}: give the checkpoint's grid (convert: --grid) or put its config.json"
            f" beside it; possible are {'; or '.join(filter(None, shapes))}"
        )
    (grid, reading), why = assumed
    chosen = f"{_name(grid)}{_others(reading)}"
    if why and "; ".join(filter(None, shapes)) != chosen:
        hints.notes.append(
            f"{what} are read as {chosen}, {why}. If that is wrong, give the checkpoint's grid"
            f" (convert: --grid): {'; or '.join(filter(None, shapes))}"
        )
    return grid, reading.rows


def plain(count: int, hints: Hints, *, pixels: Sequence[int]) -> Grid:
    """As `choose`, for `count` positions that are all of patches."""
    return choose([Reading(count)], hints, pixels=pixels)[0]


def of_relative(rows: int, hints: Hints, *, pixels: Sequence[int]) -> Grid:
    """As `choose`, for a model that has only a table of relative biases."""
    return choose(_by_relative(rows), hints, pixels=pixels, relative=rows)[0]


def _by_relative(rows: int) -> list[Reading]:
    sides = [((high + 1) // 2, (wide + 1) // 2) for high, wide in _pairs(rows - 3)]
    return [Reading(math.prod(side)) for side in sides if _offsets(side) == rows]


def _assumed(
    squares: Sequence[_Fit], asked: Sequence[_Fit], pixels: Sequence[int]
) -> tuple[_Fit, str] | None:
    """The assumed grid and the reason for the note, "" where it needs none; None if it is open."""
    unknown = "because no file beside it gives a size"
    if len(squares) == 1:
        grid, reading = squares[0]
        sides = {side * size for side, size in zip(grid, pixels, strict=True)}
        if sides <= _RELEASED and reading.square == "always":
            return squares[0], ""
        if sides <= _RELEASED and reading.square == "released":
            return squares[0], "a size of released models"
        if len(asked) != 1 and reading.square == "always":
            return squares[0], unknown
        if len(asked) != 1 and reading.square == "released" and sides <= _SMALL:
            return squares[0], unknown
    return (asked[0], "the grid of the given image_size") if len(asked) == 1 else None


def _grid(size: Grid | None, pixels: Sequence[int]) -> Grid | None:
    return (size[0] // pixels[0], size[1] // pixels[1]) if size else None


def _offsets(grid: Grid) -> int:
    """Rows of a table of relative biases: those of patches, and three of the class token."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3


def _pairs(count: int) -> list[Grid]:
    """All (rows, columns) with a product of `count` and rows <= columns, the squarest first."""
    sides = range(math.isqrt(max(count, 0)), 0, -1)
    return [(side, count // side) for side in sides if count % side == 0]


def _name(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _positions(readings: Sequence[Reading]) -> str:
    total = max(reading.patches + reading.rows * (len(readings) > 1) for reading in readings)
    return f"{total} positions"


def _described(reading: Reading, relative: int) -> str:
    """All possible grids of a reading, as a text; "" where there is none."""
    pairs = _pairs(reading.patches)
    grids = [grid for grid in pairs if relative in (0, _offsets(grid))]
    turned = " (or transposed)" if any(rows != columns for rows, columns in grids) else ""
    return ", ".join(map(_name, grids)) + turned + _others(reading) if grids else ""


def _others(reading: Reading) -> str:
    """The rows before those of patches, as a text; "" where there cannot be any."""
    if reading.rows:
        return f" after {reading.rows} row{'s' * (reading.rows > 1)} of other tokens"
    return "" if reading.square == "always" else " without rows of other tokens"
