"""Removes what trainers save around a model in a .npz: prefixes, their state, other models."""

from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.checkpoints.layouts.table import Arrays

# Prefixes of parameters: of optax trainers, older flax optimizers, and an image tower.
_PREFIXES = ("params/", "opt/target/", "optimizer/target/", "target/", "img/")
# First parts of a trainer's state, beside parameters without prefix.
_STATE = ("opt", "opt_state", "optimizer", "state", "chrono", "step", "epoch")


def bare(arrays: Mapping[str, np.ndarray], *, roots: Collection[str]) -> Arrays:
    """The arrays of the image model by names without prefix; no optimizer state, no text tower.

    Every model has an array with one of the names `roots`.
    """
    prefix = _prefix(arrays, roots)
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {k: v for k, v in found.items() if k.split("/")[0] not in _STATE}


def left_out(arrays: Mapping[str, np.ndarray], *, roots: Collection[str]) -> tuple[str, ...]:
    """A message that lists the first parts of the names that `bare` leaves out."""
    prefix = _prefix(arrays, roots)
    out = [
        name
        for name in arrays
        if not name.startswith(prefix) or name.removeprefix(prefix).split("/")[0] in _STATE
    ]
    groups = {_group(name.split("/"), prefix.split("/")) for name in out}
    return (f"left out: {', '.join(sorted(groups))}",) if groups else ()


def _group(name: list[str], prefix: list[str]) -> str:
    """The parts of a name up to the first one that is not in the prefix."""
    same = (i for i, part in enumerate(name) if prefix[i : i + 1] != [part])
    return "/".join(name[: next(same, 0) + 1])


def _prefix(arrays: Collection[str], roots: Collection[str]) -> str:
    prefix = ""
    while not any(prefix + root in arrays for root in roots):
        longer = (prefix + p for p in _PREFIXES)
        found = [p for p in longer if any(name.startswith(p) for name in arrays)]
        if not found:
            break
        prefix = found[0]
    return prefix
