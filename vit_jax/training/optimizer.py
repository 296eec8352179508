"""How parameters move: Optax optimizers with regular expressions over parameter paths.

A path joins the keys of a nested dict with "/", such as `blocks/mlp/fc1/kernel`.
The state of an optimizer repeats the nested dict of the parameters for each moment, below a prefix
of its own; what shards a parameter by its path therefore shards its moments too.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.config import OptimizerConfig


def make_optimizer(
    optimizer: OptimizerConfig, schedule: optax.Schedule, params: Any
) -> optax.GradientTransformation:
    """Clips float32 gradients by their global norm and turns them into updates of the parameters.

    `params` is a nested dict of arrays or `jax.ShapeDtypeStruct`s: only its paths are read.
    Weight decay is decoupled from the gradient in adamw (Loshchilov & Hutter 2019: the scheduled
    rate times the decay times the parameter), and part of the gradient in sgd, after clipping, as
    in PyTorch. big_vision multiplies its decay by the schedule but not by the peak rate: its
    `wd / lr` is the `weight_decay` here.
    Frozen parameters have no state, get zero updates and do not count in the gradient norm.

    Raises ValueError for a regular expression that matches no parameter, a value out of range,
    adam with weight decay, and nothing left to train.
    """
    _check(optimizer)
    frozen = _matches(params, optimizer.frozen, field="frozen")
    # The default is exempt: a model need not have kernels.
    default = optimizer.decay_mask == OptimizerConfig().decay_mask
    decayed = _matches(params, optimizer.decay_mask, field="decay_mask", may_miss=default)

    moves = _rule(optimizer, schedule=schedule, decayed=decayed)
    if optimizer.clip_norm:
        moves = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), moves)
    if not optimizer.frozen:
        return moves
    if all(jax.tree.leaves(frozen)):
        raise ValueError(f"config.optimizer.frozen {optimizer.frozen} leaves nothing to train")
    labels = jax.tree.map(lambda f: "frozen" if f else "trained", frozen)
    return optax.partition({"trained": moves, "frozen": optax.set_to_zero()}, labels)


def ema_update(ema: Any, params: Any, *, decay: float, step: jax.typing.ArrayLike) -> Any:
    """The Polyak average of `params` after one more update: decay * ema + (1 - decay) * params.

    `step`, int () counted from 0, is the number of updates `ema` has seen. Update 0 copies
    `params`, so that the average never contains the initialisation (as timm's ModelEmaV3); from
    then on the decay is constant.
    """
    weight = jnp.where(jnp.asarray(step) > 0, 1 - decay, 1.0)
    # Not decay * ema + weight * params: in float32 the two factors do not sum to 1, and the average
    # is wrong by up to 6e-4 at a decay of 0.9999; this form stays within 5e-6.
    return jax.tree.map(lambda e, p: e + weight.astype(e.dtype) * (p - e), ema, params)


def _rule(
    optimizer: OptimizerConfig, *, schedule: optax.Schedule, decayed: Any
) -> optax.GradientTransformation:
    """From clipped gradients to updates."""
    moment_dtype = jnp.dtype(optimizer.moment_dtype)
    adam = {"b1": optimizer.b1, "b2": optimizer.b2, "eps": optimizer.eps, "mu_dtype": moment_dtype}
    match optimizer.name:
        case "adamw":
            return optax.adamw(schedule, **adam, weight_decay=optimizer.weight_decay, mask=decayed)
        case "adam":
            return optax.adam(schedule, **adam)
        case "sgd":
            sgd = optax.sgd(
                schedule,
                momentum=optimizer.momentum or None,  # None: no accumulator in the state
                nesterov=optimizer.nesterov,
                accumulator_dtype=moment_dtype,
            )
            decay = optax.add_decayed_weights(optimizer.weight_decay, mask=decayed)
            return optax.chain(decay, sgd) if optimizer.weight_decay else sgd


def _matches(params: Any, patterns: tuple[str, ...], *, field: str, may_miss: bool = False) -> Any:
    """A bool for every parameter: does one of `patterns` match somewhere in its path?"""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    matched = [False] * len(paths)
    for pattern in patterns:
        try:
            hits = [re.search(pattern, path) is not None for path in paths]
        except re.error as error:
            raise ValueError(
                f"config.optimizer.{field}: {pattern!r} is no regular expression: {error}"
            ) from error
        if not (any(hits) or may_miss):
            raise ValueError(
                f"config.optimizer.{field}: {pattern!r} matches no parameter;"
                f" there are {', '.join(paths)}"
            )
        matched = [a or b for a, b in zip(matched, hits, strict=True)]
    return jax.tree.unflatten(treedef, matched)


def _check(optimizer: OptimizerConfig) -> None:
    for field in ("b1", "b2", "momentum"):
        if not 0 <= getattr(optimizer, field) < 1:
            raise ValueError(
                f"config.optimizer.{field} is {getattr(optimizer, field)}: it must be in [0, 1)"
            )
    for field in ("eps", "weight_decay", "clip_norm"):
        if getattr(optimizer, field) < 0:
            raise ValueError(
                f"config.optimizer.{field} is {getattr(optimizer, field)}: it must not be negative"
            )
    if optimizer.name == "adam" and optimizer.weight_decay:
        raise ValueError(
            f"config.optimizer.weight_decay is {optimizer.weight_decay} with name 'adam', which"
            " has none: use name 'adamw', or set it to 0"
        )
