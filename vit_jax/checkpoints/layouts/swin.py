"""What the layouts of Swin share: the sizes that arrays tell, and the table of entries."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hints import Hints, nominal_size
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models.positions import Grid
from vit_jax.models.swin import SwinOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spelling:
    """The names of a layout. `{s}` stands for a stage's number, `{i}` for a block's in it."""

    embedding: str
    embedding_norm: str
    block: str
    norm1: str
    norm2: str
    table: str
    out: str
    fc1: str
    fc2: str
    merge: str  # of the stage that starts with it
    merge_from: int  # what that stage's number is more than the name's
    norm: str
    head: str
    position: str = ""  # of the patches, where a layout has them
    qkv: Callable[..., list[Entry]]  # (path, name of the block, heads=, bias=)


def infer(
    shapes: Mapping[str, Sequence[int]], spelling: Spelling, hints: Hints, *, bias: str, **more: Any
) -> SwinOptions:
    """The model of a file's shapes. `bias` is the name of a bias of q, k or v in a block.

    Windows are square, unless `hints.grid` or the config tells. The image size is the smallest at
    which no window shrinks, unless the files beside tell of a larger one. Raises ValueError where
    arrays are missing or misshapen.
    """
    depths = _depths(shapes, spelling)
    first = [spelling.block.format(s=s, i=0) for s in range(len(depths))]
    needed = {f"{spelling.embedding}.weight": 4}
    needed |= {name + spelling.table: 2 for name in first}
    needed |= {f"{name}{spelling.fc1}.weight": 2 for name in first}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if wrong:
        raise ValueError(f"not a Swin checkpoint: {', '.join(wrong)} missing or misshapen")
    tables = [shapes[name + spelling.table] for name in first]
    width, channels, *patch = shapes[f"{spelling.embedding}.weight"]
    if patch[0] != patch[1]:
        raise ValueError(
            f"{spelling.embedding}.weight is of {patch[0]}x{patch[1]} patches: not square"
        )
    windows = _windows([rows for rows, _ in tables], patch, hints)
    sides = [
        size * max(window[axis] * 2**s for s, window in enumerate(windows))
        for axis, size in enumerate(patch)
    ]
    told = nominal_size(hints) or (0, 0)
    size = max(sides[0], told[0]), max(sides[1], told[1])
    if placed := shapes.get(spelling.position):
        size = _placed_size(placed, size, patch, hints)
        more["position"] = "learned_1d"
    return SwinOptions(
        image_size=size,
        patch_size=(patch[0], patch[1]),
        channels=channels,
        width=width,
        depths=depths,
        num_heads=tuple(heads for _, heads in tables),
        mlp_dims=tuple(shapes[f"{name}{spelling.fc1}.weight"][0] for name in first),
        windows=windows,
        num_classes=shapes.get(f"{spelling.head}.weight", (0,))[0],
        qkv_bias=first[0] + bias in shapes,
        **more,
    )


def entries(options: SwinOptions, spelling: Spelling) -> list[Entry]:
    """The table of a model."""
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


def _depths(names: Mapping[str, Any], spelling: Spelling) -> tuple[int, ...]:
    """Blocks of every stage. Raises ValueError where a stage is missing."""
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


def _placed_size(table: Sequence[int], size: Grid, patch: Sequence[int], hints: Hints) -> Grid:
    """The image size of a table (1, N, D) of positions: told, or of a square grid."""
    count = table[-2] if len(table) == 3 else 0
    if count == -(-size[0] // patch[0]) * -(-size[1] // patch[1]) and not hints.grid:
        return size
    rows, columns = hints.square(count)
    return rows * patch[0], columns * patch[1]


def _windows(tables: Sequence[int], patch: Sequence[int], hints: Hints) -> tuple[Grid, ...]:
    """The window of each stage, from the rows of its table."""
    squares = [_square(rows) for rows in tables]
    image = nominal_size(hints)
    found = []
    for stage, (rows, square) in enumerate(zip(tables, squares, strict=True)):
        candidates = [hints.grid, square]
        if image and any(squares):
            # A window as large as those of other stages may be more than this one's features.
            side = max(w[0] for w in squares if w)
            grid = [-(-i // (p * 2**stage)) for i, p in zip(image, patch, strict=True)]
            candidates.append((min(side, grid[0]), min(side, grid[1])))
        fitting = [w for w in candidates if w and (2 * w[0] - 1) * (2 * w[1] - 1) == rows]
        if not fitting:
            raise ValueError(f"{rows} relative positions are of no square window: give it as grid")
        found.append(fitting[0])
    return tuple(found)


def _square(rows: int) -> Grid | None:
    side = (round(rows**0.5) + 1) // 2
    return (side, side) if (2 * side - 1) ** 2 == rows else None
