"""What surrounds a model in a .npz: the prefixes of trainers, their state, and other models."""

from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.checkpoints.layouts.table import Arrays

# Before the parameters: optax's trainers, flax's older optimizers, and the image tower of two.
_PREFIXES = ("params/", "opt/target/", "optimizer/target/", "target/", "img/")
# Beside parameters that have no prefix.
_STATE = ("opt", "opt_state", "optimizer", "state", "chrono", "step", "epoch")


def bare(arrays: Mapping[str, np.ndarray], *, roots: Collection[str]) -> Arrays:
    """The arrays of the image model alone (no optimizer state, no text tower), without prefix.

    `roots` are names of which a model has one.
    """
    prefix = _prefix(arrays, roots)
    found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
    return {k: v for k, v in found.items() if k.split("/")[0] not in _STATE}


def left_out(arrays: Mapping[str, np.ndarray], *, roots: Collection[str]) -> tuple[str, ...]:
    """What `bare` leaves out, in words: the first parts of the names."""
    prefix = _prefix(arrays, roots)
    out = [
        name
        for name in arrays
        if not name.startswith(prefix) or name.removeprefix(prefix).split("/")[0] in _STATE
    ]
    groups = {_group(name.split("/"), prefix.split("/")) for name in out}
    return (f"left out: {', '.join(sorted(groups))}",) if groups else ()


def _group(name: list[str], prefix: list[str]) -> str:
    """The parts of a name up to where it leaves the prefix."""
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
