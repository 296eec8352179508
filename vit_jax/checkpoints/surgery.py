"""Surgery between two models: another resolution, another head, other pooling.

Parameters are flat dicts from a path to a float32 array on the host.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.checkpoints import channels
from vit_jax.checkpoints.classes import Match
from vit_jax.models import positions, zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.swin import SwinOptions
from vit_jax.models.vit import ViTOptions
from vit_jax.models.zoo import Options

Params = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of every parameter, by path."""

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    dropped: tuple[str, ...]
    initialised: tuple[str, ...]
    reordered: tuple[str, ...] = ()  # one entry a class, in the order of the target's classes
    notes: tuple[str, ...] = ()  # in words, what was assumed of classes and channels

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} parameters as they are"]
        if self.reordered:
            lines.append(f"reordered by class name: {', '.join(self.reordered)}")
        for what in ("resized", "dropped", "initialised"):
            paths = getattr(self, what)
            lines.append(f"{what}: {', '.join(paths) if paths else 'none'}")
        return "\n".join((*lines, *(f"note: {note}" for note in self.notes)))


def adapt(
    params: Mapping[str, np.ndarray],
    *,
    source: Options,
    target: Options,
    key: jax.Array,
    resize: Methods = Methods(),  # noqa: B008 (frozen)
    classes: Match | None = None,
    adapt_channels: bool = False,
) -> tuple[Params, Report]:
    """Fits the parameters of `source` to the model `target`; `key` draws what is new.

    Positions are resized to the target's grid; those of kind "relative" as a line of offsets, which
    is rough: an offset in raster order is no place on another grid. The head is kept only where
    classes and features are the same, and zero-initialised otherwise; `classes` says which class
    of the source is which of the target (unset: the same number is the same class). Tokens,
    pooling, pre-logits, positions and what only pretraining needs are dropped or drawn where one
    of the two models lacks them; other channels are fitted with `adapt_channels`. Raises
    ValueError that lists all other misfits.
    """
    _check_kind(source, target)
    expected = shapes(target)
    replaced, given = _replaced(source, target, classes), params
    if isinstance(source, ViTOptions) and isinstance(target, ViTOptions):
        params = _realigned(params, source, target)
    params, reordered = _by_class(params, classes, replaced)
    out: Params = {}
    resized, dropped, misfits = {}, [], {}  # resized and misfits in words, by path
    for path, array in params.items():
        if _under(path, replaced) or path not in expected and _under(path, _OPTIONAL):
            dropped.append(path)
        elif path not in expected:
            misfits[path] = f"{path} has no place in the model"
        else:
            if change := _RESIZE.get(path) or _of_windows(path):
                before = given.get(path, array)
                array = change(array, source, target, resize).astype(np.float32)
                if not np.array_equal(array, before):
                    resized[path] = f"{path} {before.shape} -> {array.shape}"
            if array.shape != expected[path]:
                misfits[path] = f"{path} is {array.shape}, the model has {expected[path]}"
            out[path] = array
    missing = sorted(set(expected) - set(out))
    may_lack = (*replaced, *_OPTIONAL, *_ADDED)
    misfits |= {path: f"{path} is missing" for path in missing if not _under(path, may_lack)}
    found = list(misfits.values())
    if source.channels != target.channels and not adapt_channels:
        found.insert(0, channels.refusal(source, target))
    if found:
        raise ValueError(f"the checkpoint is of another model: {'; '.join(found)}")
    out.update(_fresh(target, missing, key))
    report = Report(
        loaded=tuple(sorted(set(out) - {*missing, *resized, *reordered})),
        resized=tuple(resized.values()),
        dropped=tuple(sorted(dropped)),
        initialised=tuple(missing),
        reordered=reordered,
        notes=_about_classes(source, target, classes, replaced) + channels.notes(source, target),
    )
    return out, report


def _by_class(
    params: Mapping[str, np.ndarray], classes: Match | None, replaced: tuple[str, ...]
) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """The heads' columns and biases in the order of the target's classes, and their paths."""
    if not classes or classes.kind != "reordered":
        return params, ()
    rows = np.asarray(classes.rows)
    kept = [path for path in params if _under(path, _HEADS) and not _under(path, replaced)]
    moved = {path: params[path][..., rows] for path in kept}
    return {**params, **moved}, tuple(sorted(moved))


def _about_classes(
    source: Options, target: Options, classes: Match | None, replaced: tuple[str, ...]
) -> tuple[str, ...]:
    """What became of the head because of what the classes are called, where that is to be said."""
    if not (classes and classes.note and source.num_classes and target.num_classes):
        return ()
    if not classes.kept:
        return (f"the classes of the head are others ({classes.note}): it starts at zero",)
    return () if _under("head", replaced) else (f"the head is kept: {classes.note}",)


def with_rows(params: Mapping[str, np.ndarray], *, source: Options, target: Options) -> Params:
    """The parameters of `source` with the rows of positions for its class token that `target` has.

    A row that there is no more becomes part of its token: both models compute the same.
    """
    if not isinstance(source, ViTOptions) or not isinstance(target, ViTOptions):
        return dict(params)
    wanted = dataclasses.replace(source, class_position=target.class_position)
    return _realigned(params, source, wanted) if wanted != source else dict(params)


def _check_kind(source: Options, target: Options) -> None:
    old, new = (type(options).__name__.removesuffix("Options") for options in (source, target))
    if old != new:
        raise ValueError(f"the checkpoint is of another model: {old}, not {new}")


def shapes(options: Options) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by path; nothing is computed."""
    _, abstract = zoo.abstract(options)
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(abstract), sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def _initial(options: Options, key: jax.Array) -> dict[str, jax.Array]:
    state = nnx.state(zoo.init(options, key=key))
    return traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")


def _fresh(options: Options, paths: list[str], key: jax.Array) -> Params:
    """Initial values of some parameters; the compiler leaves the others out."""
    if not paths:
        return {}
    draw = jax.jit(lambda key: {p: v for p, v in _initial(options, key).items() if p in paths})
    return jax.tree.map(np.asarray, draw(key))


# Parameters that one of two otherwise equal models may lack.
_POSITIONS = (
    *("position", "position_rows", "position_columns"),
    *("blocks/position", "blocks/attention/relative"),
)
_RELATIVE, _OWN_RELATIVE = "relative_bias", "blocks/attention/relative_bias"
_OPTIONAL = (
    *("cls", "distillation", "registers", "mask", *_POSITIONS, _RELATIVE, _OWN_RELATIVE),
    *("pool", "pre_logits", "head", "head_distillation", "mim_head", "mim_norm", "decoder"),
)
_ADDED = ("blocks/scale1", "blocks/scale2")  # may be new, but not be dropped


_HEADS = ("head", "head_distillation")  # whose last axis is the classes


def _replaced(source: Options, target: Options, classes: Match | None) -> tuple[str, ...]:
    """Paths whose values mean something else in the target, though shapes may agree."""
    replaced: tuple[str, ...] = ()
    same_head = source.num_classes == target.num_classes and (classes is None or classes.kept)
    if not (isinstance(source, ViTOptions) and isinstance(target, ViTOptions)):
        return () if same_head else ("head",)
    if source.representation_size != target.representation_size:
        replaced += ("pre_logits",)
    if replaced or not same_head or source.feature_size != target.feature_size:
        replaced += _HEADS
    if source.mim_classes != target.mim_classes:
        replaced += ("mim_head",)
    if source.pool != target.pool:
        replaced += ("pool",)
    if source.norm_at != target.norm_at:
        replaced += ("norm",)
    if (source.position, source.position_at) != (target.position, target.position_at):
        replaced += _POSITIONS
    return replaced


def _realigned(
    params: Mapping[str, np.ndarray], source: ViTOptions, target: ViTOptions
) -> dict[str, np.ndarray]:
    """The same model with the target's rows of positions and its sharing of relative biases."""
    params = dict(params)
    if (source.relative_bias, target.relative_bias) == ("shared", "per_block"):
        shared = params.pop(_RELATIVE)
        params[_OWN_RELATIVE] = np.repeat(shared[None], target.depth, axis=0)
    table = params.get("position")
    if table is None or target.position != "learned_1d":
        return params
    rows, patches = np.split(table, [source.position_prefix], axis=-2)
    kept: dict[str, np.ndarray] = {}
    for name, count in _prefix_rows(source).items():
        kept[name], rows = np.split(rows, [count], axis=-2)
    wanted = _prefix_rows(target)
    for name in ("cls", "distillation", "registers"):
        # A row that is no longer added to its token becomes part of the token.
        if name in kept and name in params and name not in wanted:
            params[name] = params[name] + kept[name]
    empty = np.zeros_like(table[..., :0, :])
    prefix = [_exactly(kept.get(name, empty), count) for name, count in wanted.items()]
    params["position"] = np.concatenate([*prefix, patches], axis=-2)
    return params


def _prefix_rows(options: ViTOptions) -> dict[str, int]:
    """Rows of the position table for each token that is no patch, in their order."""
    rows = {}
    if options.class_position and options.has_class_token:
        rows["cls"] = 1
    if options.class_position and options.distillation:
        rows["distillation"] = 1
    if options.register_position and options.registers:
        rows["registers"] = options.registers
    return rows


def _exactly(rows: np.ndarray, count: int) -> np.ndarray:
    """Some rows (..., n, D) cut or filled with zeros to `count`."""
    rows = rows[..., :count, :]
    pad = [(0, 0)] * (rows.ndim - 2) + [(0, count - rows.shape[-2]), (0, 0)]
    return np.pad(rows, pad)


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root + "/") for root in roots)


def _resize_table(
    table: np.ndarray, source: ViTOptions, target: ViTOptions, methods: Methods
) -> np.ndarray:
    """A 1D table on another grid; what stands before the patches is kept."""
    return positions.resize(table, source=source.grid, target=target.grid, method=methods.position)


def _resize_decoder_table(
    table: np.ndarray, source: ViTOptions, target: ViTOptions, methods: Methods
) -> np.ndarray:
    """A 1D table of a decoder; the "flat" method does not know that patches have columns."""
    old, new = source.grid, target.grid
    if methods.decoder == "flat" and old != new:
        old, new = (1, old[0] * old[1]), (1, new[0] * new[1])
    return positions.resize(table, source=old, target=new, method=methods.position)


def _resize_own_table(
    table: np.ndarray, source: ViTOptions, target: ViTOptions, methods: Methods
) -> np.ndarray:
    """The same of every block, with or without the class token's row."""
    patches = source.grid[0] * source.grid[1]
    rows = _exactly(table[..., :-patches, :], target.position_prefix)
    table = np.concatenate([rows, table[..., -patches:, :]], axis=-2)
    return _resize_table(table, source, target, methods)


def _resize_relative(
    table: np.ndarray, source: ViTOptions, target: ViTOptions, methods: Methods
) -> np.ndarray:
    return positions.resize_relative(
        table, source=source.grid, target=target.grid, method=methods.relative
    )


def _resample_patch(
    kernel: np.ndarray, source: ViTOptions, target: ViTOptions, methods: Methods
) -> np.ndarray:
    kernel = kernel if getattr(target, "stem", None) else channels.adapt(kernel, target.channels)
    return positions.resample_patch(kernel, target.patch_size, method=methods.patch)


def _of_windows(path: str) -> "Resize | None":
    """The resizing of a table of Swin, which depends on the windows of its stage."""
    match = re.match(r"stage(\d+)/blocks/relative_bias$", path)
    return functools.partial(_resize_windows, int(match[1]) - 1) if match else None


def _resize_windows(
    stage: int, table: np.ndarray, source: SwinOptions, target: SwinOptions, methods: Methods
) -> np.ndarray:
    windows = source.stage_windows[stage], target.stage_windows[stage]
    return positions.resize_relative(
        table, source=windows[0], target=windows[1], method=methods.relative
    )


# A path tells the family, and so the type of the options.
Resize = Callable[[np.ndarray, Any, Any, Methods], np.ndarray]
_RESIZE: dict[str, Resize] = {
    "position": _resize_table,
    "blocks/position": _resize_own_table,
    "decoder/position": _resize_decoder_table,
    _RELATIVE: _resize_relative,
    _OWN_RELATIVE: _resize_relative,
    "position_rows": lambda a, _, target, __: positions.resize_rows(a, target.grid[0]),
    "position_columns": lambda a, _, target, __: positions.resize_rows(a, target.grid[1]),
    "blocks/attention/relative": lambda a, _, target, __: positions.resize_rows(
        a, 2 * target.tokens - 1
    ),
    "embedding/kernel": _resample_patch,
    "stem/root/kernel": lambda a, _, target, __: channels.adapt(a, target.channels),
}
