"""One table of entries for the ResNets of all layouts, whether models or stems of hybrids."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models.resnet import StemOptions

Join = Callable[[np.ndarray], np.ndarray]
Split = Callable[[np.ndarray], Sequence[np.ndarray]]


def _same(array: np.ndarray) -> np.ndarray:
    return array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spelling:
    """The names of a ResNet's arrays in a layout. Names within a unit are appended to `unit`.

    `{b}` and `{u}` stand for the numbers of stage and unit, which start at `first`; `{n}` is 1, 2
    or 3. `unit` is a format string: `{u:02d}` has two digits. Names of norms are without the last
    part, which `leaves` adds.
    """

    root: str
    root_norm: str = ""  # only of post-activation
    unit: str
    first: int
    conv: str
    norm: str
    proj: str
    proj_norm: str = ""  # only of post-activation
    final_norm: str = ""  # only of pre-activation
    leaves: tuple[str, str] = ("scale", "bias")  # last parts of norms' names, with the separator
    conv_join: Join = _same
    conv_split: Split = lambda kernel: (kernel,)
    norm_join: Join = _same
    norm_split: Split = lambda vector: (vector,)


def oihw_to_hwio(kernel: np.ndarray) -> np.ndarray:
    return kernel.transpose(2, 3, 1, 0)


def hwio_to_oihw(kernel: np.ndarray) -> tuple[np.ndarray]:
    return (kernel.transpose(3, 2, 0, 1),)


# Names shared by vit_jax and big_vision (NPZ), and by timm and Hugging Face (TORCH).
NPZ = Spelling(
    root="conv_root/kernel",
    root_norm="gn_root",
    unit="block{b}/unit{u}/",
    first=1,
    conv="conv{n}/kernel",
    norm="gn{n}",
    proj="conv_proj/kernel",
    proj_norm="gn_proj",
    leaves=("/scale", "/bias"),
)
TORCH = Spelling(
    root="",
    unit="",
    first=0,
    conv="conv{n}.weight",
    norm="norm{n}",
    proj="downsample.conv.weight",
    leaves=(".weight", ".bias"),
    conv_join=oihw_to_hwio,
    conv_split=hwio_to_oihw,
)


def of_timm(prefix: str) -> Spelling:
    """The names of timm's ResNets, after `prefix`."""
    return dataclasses.replace(
        TORCH,
        root=f"{prefix}stem.conv.weight",
        root_norm=f"{prefix}stem.norm",
        unit=prefix + "stages.{b}.blocks.{u}.",
        proj_norm="downsample.norm",
        final_norm=f"{prefix}norm",
    )


def of_hugging_face(prefix: str) -> Spelling:
    """The names of Hugging Face's BiT, after `prefix`."""
    return dataclasses.replace(
        TORCH,
        root=f"{prefix}embedder.convolution.weight",
        root_norm=f"{prefix}embedder.norm",
        unit=prefix + "encoder.stages.{b}.layers.{u}.",
        proj_norm="downsample.norm",
        final_norm=f"{prefix}norm",
    )


def with_numerics(stem: StemOptions, numerics: StemOptions, *, kept: Sequence[str] = ()) -> dict:
    """The field `stem` that readers assume: `numerics`, with sizes and the fields `kept` of `stem`.

    Returned as {"stem": options}.
    """
    names = ("num_layers", "root_width", "widths", *kept)
    sizes = {name: getattr(stem, name) for name in names}
    return {"stem": dataclasses.replace(numerics, **sizes)}


def stem_entries(stem: StemOptions, spelling: Spelling, *, path: str = "stem") -> list[Entry]:
    """The table of a ResNet body whose parameters are under `path`."""
    post = not stem.preactivation
    table = [_conv(spelling, f"{path}/root", spelling.root)]
    if post:
        table += _norm(spelling, f"{path}/root/norm", spelling.root_norm)
    for b, depth in enumerate(stem.num_layers):
        for u in range(depth):
            ours = f"{path}/block{b + 1}/unit{u + 1}"
            theirs = spelling.unit.format(b=b + spelling.first, u=u + spelling.first)
            for n in ("1", "2", "3"):
                conv, norm = (theirs + s.format(n=n) for s in (spelling.conv, spelling.norm))
                table.append(_conv(spelling, f"{ours}/conv{n}", conv))
                where = f"{ours}/conv{n}/norm" if post else f"{ours}/norm{n}"
                table += _norm(spelling, where, norm)
            if u == 0 and _projects(stem, b):
                table.append(_conv(spelling, f"{ours}/proj", theirs + spelling.proj))
                if post:
                    table += _norm(spelling, f"{ours}/proj/norm", theirs + spelling.proj_norm)
    return table + ([] if post else _norm(spelling, f"{path}/norm", spelling.final_norm))


def infer_stem(
    shapes: Mapping[str, Sequence[int]], spelling: Spelling, *, numerics: StemOptions
) -> StemOptions:
    """The options of a ResNet body: sizes from the shapes of arrays, the rest from `numerics`.

    Raises ValueError where stages or arrays are missing.
    """
    layers = _depths(shapes, spelling)
    root = _output(shapes, spelling, spelling.root)
    widths = []
    for b in range(len(layers)):
        first = spelling.unit.format(b=b + spelling.first, u=spelling.first)
        widths.append(_output(shapes, spelling, first + spelling.conv.format(n=3)))
    usual = dataclasses.replace(numerics, num_layers=layers, root_width=root, widths=())
    if usual.stage_widths == tuple(widths):
        return usual
    return dataclasses.replace(usual, widths=tuple(widths))


def _depths(names: Collection[str], spelling: Spelling) -> tuple[int, ...]:
    """The number of units of each stage; () where there is only a root."""
    pattern = re.escape(spelling.unit).replace(r"\{b\}", r"(\d+)")
    pattern = re.sub(r"\\\{u(:02d)?\\\}", r"(\\d+)", pattern)
    depths: dict[int, int] = {}
    for name in names:
        if match := re.match(pattern, name):
            stage, unit = map(int, match.groups())
            depths[stage] = max(unit + 1 - spelling.first, depths.get(stage, 0))
    stages = sorted(depths)
    if stages != list(range(spelling.first, spelling.first + len(stages))):
        raise ValueError(f"the ResNet's stages are {stages}: some are missing")
    return tuple(depths[stage] for stage in stages)


def _output(shapes: Mapping[str, Sequence[int]], spelling: Spelling, name: str) -> int:
    """The output channels of a convolution. Raises ValueError where its shape is wrong."""
    shape = shapes.get(name, ())
    if len(shape) != 4:
        raise ValueError(f"not a ResNet: missing or wrong-rank array: {name}")
    return spelling.conv_join(np.broadcast_to(np.float32(0), shape)).shape[-1]


def _projects(stem: StemOptions, stage: int) -> bool:
    """Whether the first unit of a stage projects its residual."""
    before = stem.stage_widths[stage - 1] if stage else stem.root_width
    return stage > 0 or before != stem.stage_widths[0]


def _conv(spelling: Spelling, path: str, name: str) -> Entry:
    return Entry(f"{path}/kernel", (name,), spelling.conv_join, spelling.conv_split)


def _norm(spelling: Spelling, path: str, name: str) -> list[Entry]:
    return [
        Entry(f"{path}/{ours}", (f"{name}{theirs}",), spelling.norm_join, spelling.norm_split)
        for ours, theirs in zip(("scale", "bias"), spelling.leaves, strict=True)
    ]
