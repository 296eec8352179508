"""Code shared by the layouts of Swin: sizes from shapes of arrays, and the table of entries."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.checkpoints.layouts import grids, torch
from vit_jax.checkpoints.layouts.hints import Hints, nominal_size
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models.positions import Grid
from vit_jax.models.swin import SwinOptions
from vit_jax.models.windows import Padding, shrink


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spelling:
    """Names of a Swin's arrays in a layout. `{s}` is the number of a stage, `{i}` of a block."""

    embedding: str
    embedding_norm: str
    block: str
    norm1: str
    norm2: str
    table: str
    out: str
    fc1: str
    fc2: str
    merge: str  # the merging of patches at the start of a stage
    merge_from: int  # this number is subtracted from the stage's number in the name of `merge`
    norm: str
    head: str
    position: str = ""  # positions of the patches, "" where the layout has none
    qkv: Callable[..., list[Entry]]  # (path, name of the block, heads=, bias=)
    bias: str  # a bias of query, key or value in a block


def infer(
    shapes: Mapping[str, Sequence[int]],
    spelling: Spelling,
    hints: Hints,
    *,
    padding: Padding,
    wanted: Sequence[Grid] = (),
    **more: Any,
) -> SwinOptions:
    """The options of a model, from the shapes of its arrays.

    `wanted` are the windows of the stages from the files beside the weights, () if unknown; the
    windows in the arrays are smaller where a stage has fewer features. Without `wanted`, a window
    is that of `hints.grid`, or square. The image size is that of the files beside the weights, or
    the smallest at which no window shrinks. Raises ValueError where arrays are missing or have a
    wrong rank.
    """
    blocks = depths(shapes, spelling)
    first = [spelling.block.format(s=s, i=0) for s in range(len(blocks))]
    needed = {f"{spelling.embedding}.weight": 4}
    needed |= {name + spelling.table: 2 for name in first}
    needed |= {f"{name}{spelling.fc1}.weight": 2 for name in first}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(f"not a Swin checkpoint: missing or wrong-rank arrays: {', '.join(wrong)}")
    tables = [shapes[name + spelling.table] for name in first]
    width, channels, *patch = shapes[f"{spelling.embedding}.weight"]
    if patch[0] != patch[1]:
        raise ValueError(
            f"{spelling.embedding}.weight has {patch[0]}x{patch[1]} patches: they must be square"
        )
    stages = _windows([rows for rows, _ in tables], patch, hints, wanted=wanted, padding=padding)
    sides = [
        size * max(used[axis] * 2**s for s, (_, used) in enumerate(stages))
        for axis, size in enumerate(patch)
    ]
    size = nominal_size(hints) or (sides[0], sides[1])
    positions = shapes.get(spelling.position)
    if positions:
        size = _positions_size(positions, size, patch, hints)
        more["position"] = "learned_1d"
    options = SwinOptions(
        image_size=size,
        patch_size=(patch[0], patch[1]),
        channels=channels,
        width=width,
        depths=blocks,
        num_heads=tuple(heads for _, heads in tables),
        mlp_dims=tuple(shapes[f"{name}{spelling.fc1}.weight"][0] for name in first),
        windows=tuple(window for window, _ in stages),
        padding=padding,
        num_classes=shapes.get(f"{spelling.head}.weight", (0,))[0],
        qkv_bias=first[0] + spelling.bias in shapes,
        **more,
    )
    if positions or options.stage_windows == tuple(used for _, used in stages):
        return options
    larger = (max(sides[0], options.image_size[0]), max(sides[1], options.image_size[1]))
    return dataclasses.replace(options, image_size=larger)


def entries(options: SwinOptions, spelling: Spelling) -> list[Entry]:
    """The table of entries of a model. Raises ValueError for positions that the layout lacks."""
    if options.position != "none" and not spelling.position:
        raise ValueError(
            f"the timm layout cannot hold a Swin with position={options.position!r}: timm's has no"
            " positions besides its relative biases"
        )
    table = [
        *torch.conv("embedding", spelling.embedding),
        *torch.norm("embedding_norm", spelling.embedding_norm),
        *torch.norm("norm", spelling.norm),
    ]
    if options.position != "none":
        table.append(Entry("position", (spelling.position,)))
    for s, heads in enumerate(options.stage_heads):
        ours, theirs = f"stage{s + 1}/blocks", spelling.block.replace("{s}", str(s))
        table += [
            *torch.norm(f"{ours}/norm1", theirs + spelling.norm1),
            *spelling.qkv(f"{ours}/attention/qkv", theirs, heads=heads, bias=options.qkv_bias),
            *torch.attention_out(f"{ours}/attention/out", theirs + spelling.out, heads=heads),
            Entry(f"{ours}/relative_bias", (theirs + spelling.table,)),
            *torch.norm(f"{ours}/norm2", theirs + spelling.norm2),
            *torch.linear(f"{ours}/mlp/fc1", theirs + spelling.fc1),
            *torch.linear(f"{ours}/mlp/fc2", theirs + spelling.fc2),
        ]
        if s:
            merge = spelling.merge.format(s=s - spelling.merge_from)
            table += torch.norm(f"stage{s + 1}/merge/norm", f"{merge}.norm")
            name = f"{merge}.reduction"
            table += torch.linear(f"stage{s + 1}/merge/reduction", name, bias=False)
    return table + (torch.linear("head", spelling.head) if options.num_classes else [])


def depths(names: Mapping[str, Any], spelling: Spelling) -> tuple[int, ...]:
    """The number of blocks of each stage. Raises ValueError where a stage is missing."""
    pattern = re.escape(spelling.block)
    pattern = pattern.replace(r"\{s\}", r"(\d+)").replace(r"\{i\}", r"(\d+)")
    depths: dict[int, int] = {}
    for name in names:
        if match := re.match(pattern, name):
            stage, block = map(int, match.groups())
            depths[stage] = max(block + 1, depths.get(stage, 0))
    stages = sorted(depths)
    if not stages or stages != list(range(len(stages))):
        raise ValueError(f"Swin's stages are {stages}: some are missing")
    return tuple(depths[stage] for stage in stages)


def _positions_size(table: Sequence[int], size: Grid, patch: Sequence[int], hints: Hints) -> Grid:
    """The image size that a table (1, N, D) of positions is for: `size` if it fits."""
    count = table[-2] if len(table) == 3 else 0
    if count == -(-size[0] // patch[0]) * -(-size[1] // patch[1]) and not hints.grid:
        return size
    rows, columns = grids.plain(count, hints, pixels=patch)
    return rows * patch[0], columns * patch[1]


def _windows(
    tables: Sequence[int],
    patch: Sequence[int],
    hints: Hints,
    *,
    wanted: Sequence[Grid],
    padding: Padding,
) -> list[tuple[Grid, Grid]]:
    """For each stage: its window as specified, and as its table has it.

    `tables` are the numbers of rows of the tables. Raises ValueError where no window fits.
    """
    squares = [_square(rows) for rows in tables]
    largest = max((square for square in squares if square), default=None)
    image = nominal_size(hints)
    found = []
    for stage, (rows, square) in enumerate(zip(tables, squares, strict=True)):
        given = wanted[stage] if len(wanted) == len(tables) else None
        grid = tuple(-(-i // (p * 2**stage)) for i, p in zip(image or patch, patch, strict=True))
        # A window that is larger than the features of its stage shrinks.
        shrunk = [
            (w, shrink(w, (grid[0], grid[1]), padding) if image else w) for w in _known(given)
        ]
        shrunk += [(window, window) for window in _known(hints.grid, square)]
        if image:
            more = _known(hints.grid, largest)
            shrunk += [(w, shrink(w, (grid[0], grid[1]), padding)) for w in more]
        fitting = [pair for pair in shrunk if (2 * pair[1][0] - 1) * (2 * pair[1][1] - 1) == rows]
        if not fitting:
            raise ValueError(
                f"{rows} relative positions do not fit a square window: give the window's size as"
                " grid (convert: --grid)"
            )
        found.append(fitting[0])
    return found


def _known(*windows: Grid | None) -> list[Grid]:
    return [window for window in windows if window]


def _square(rows: int) -> Grid | None:
    side = (round(rows**0.5) + 1) // 2
    return (side, side) if (2 * side - 1) ** 2 == rows else None
