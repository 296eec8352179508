"""Surgery: fits parameters to a model with another resolution, head or pooling.

Parameters are flat dicts from a path to a float32 array on the host.
"""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
from flax import nnx, traverse_util

from vit_jax.checkpoints import channels
from vit_jax.checkpoints.classes import Match
from vit_jax.models import zoo
from vit_jax.models.fitting import Fitting, under
from vit_jax.models.interpolation import Methods
from vit_jax.models.zoo import Options

Params = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was done with every parameter, by path."""

    loaded: tuple[str, ...]
    resized: tuple[str, ...]
    dropped: tuple[str, ...]
    initialised: tuple[str, ...]
    reordered: tuple[str, ...] = ()  # parameters with one entry per class, in the target's order
    notes: tuple[str, ...] = ()  # messages about assumptions on classes and channels

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} parameters as they are"]
        if self.reordered:
            lines.append(f"reordered by class name: {', '.join(self.reordered)}")
        for what in ("resized", "dropped", "initialised"):
            paths = getattr(self, what)
            lines.append(f"{what}: {', '.join(paths) or 'none'}")
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
    """Fits the parameters of `source` to the model `target`; `key` initialises new ones.

    The family's rules (`models/fitting.py`) say which parameters are resized to the target's sizes,
    and which may be dropped or initialised where only one of the models has them. The head is kept
    if classes and features are the same, otherwise it starts anew; `classes` maps the source's
    classes to the target's (unset: equal numbers are the same class). Another number of channels
    needs `adapt_channels`. Raises ValueError that lists all other misfits.
    """
    family = _shared(source, target)
    expected, given = shapes(target), params
    replaced = _replaced(family, source, target, classes)
    params = family.realigned(params, source, target)
    params, reordered = _by_class(family, params, classes, replaced)
    out: Params = {}
    resized, dropped, misfits = {}, [], {}  # resized, misfits: a message by path
    for path, array in params.items():
        if under(path, replaced) or path not in expected and under(path, family.optional):
            dropped.append(path)
        elif path not in expected:
            misfits[path] = f"the model has no {path}"
        else:
            if change := family.resize(path):
                before = given.get(path, array)
                array = change(array, source, target, resize).astype(np.float32)
                if not np.array_equal(array, before):
                    resized[path] = f"{path} {before.shape} -> {array.shape}"
            if array.shape != expected[path]:
                misfits[path] = f"{path} is {array.shape}, the model has {expected[path]}"
            out[path] = array
    missing = sorted(set(expected) - set(out))
    may_lack = (*replaced, *family.optional, *family.added)
    misfits |= {path: f"{path} is missing" for path in missing if not under(path, may_lack)}
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
    family: Fitting,
    params: Mapping[str, np.ndarray],
    classes: Match | None,
    replaced: tuple[str, ...],
) -> tuple[Mapping[str, np.ndarray], tuple[str, ...]]:
    """`params` with the classes of the heads in the target's order, and the paths of the heads."""
    if not classes or classes.kind != "reordered":
        return params, ()
    rows = np.asarray(classes.rows)
    kept = [path for path in params if under(path, family.heads) and not under(path, replaced)]
    moved = {path: params[path][..., rows] for path in kept}
    return {**params, **moved}, tuple(sorted(moved))


def _about_classes(
    source: Options, target: Options, classes: Match | None, replaced: tuple[str, ...]
) -> tuple[str, ...]:
    """A message on the head where `classes` has a note and both models have classes."""
    if not (classes and classes.note and source.num_classes and target.num_classes):
        return ()
    if not classes.kept:
        return (f"the head starts anew, because the classes differ: {classes.note}",)
    return () if under("head", replaced) else (f"the head is kept: {classes.note}",)


def with_rows(params: Mapping[str, np.ndarray], *, source: Options, target: Options) -> Params:
    """The parameters of `source` with position rows for the same tokens as in `target`.

    A removed row of a token is added to the token, so that the model computes the same.
    """
    wanted = source.with_rows_of(target)
    if wanted == source:
        return dict(params)
    return dict(zoo.family(source).fitting.realigned(params, source, wanted))


def _shared(source: Options, target: Options) -> Fitting:
    """The rules for fitting that both models share. Raises ValueError if they have none."""
    theirs, ours = zoo.family(source).fitting, zoo.family(target).fitting
    if theirs is not ours:
        raise ValueError(f"the checkpoint is of another model: {source.kind}, not {target.kind}")
    return ours


def _replaced(
    family: Fitting, source: Options, target: Options, classes: Match | None
) -> tuple[str, ...]:
    """Paths of parameters that the target cannot use, even if shapes agree."""
    same_head = source.num_classes == target.num_classes and (classes is None or classes.kept)
    return family.replaced(source, target) + (() if same_head else family.heads)


def shapes(options: Options) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by path; nothing is computed."""
    _, abstract = zoo.abstract(options)
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(abstract), sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def _initial(options: Options, key: jax.Array) -> dict[str, jax.Array]:
    state = nnx.state(zoo.init(options, key=key))
    return traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")


def _fresh(options: Options, paths: list[str], key: jax.Array) -> Params:
    """Initial values of the parameters at `paths`; the compiler removes all other work."""
    if not paths:
        return {}
    draw = jax.jit(lambda key: {p: v for p, v in _initial(options, key).items() if p in paths})
    return jax.tree.map(np.asarray, draw(key))
