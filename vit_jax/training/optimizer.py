"""From gradients to updates: an optimizer, clipping, and rates that differ by path or layer."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax import schema
from vit_jax.models import stack
from vit_jax.training.optimizers import OPTIMIZERS as OPTIMIZERS
from vit_jax.training.optimizers import Rule, contract


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer. Paths of parameters are such as `encoder/blocks/mlp/fc1/kernel`."""

    rule: Rule = schema.choice(OPTIMIZERS, "adamw", key="name")  # how gradients become updates
    learning_rate: float = 1e-3  # peak of the schedule
    rate_batch: int = 0  # batch size that the learning rate is stated for; 0: any
    # How the rate follows another batch size: times batch / rate_batch, its square root, or not.
    rate_rule: Literal["linear", "sqrt", "none"] = "linear"
    # Factor of the learning rate from each layer to the layer below it; 1: equal rates.
    layer_decay: float = 1.0
    # Pairs (regular expression of paths, factor of their rate); the first match counts.
    rate_factors: tuple[tuple[str, float], ...] = ()
    frozen: tuple[str, ...] = ()  # regular expressions of the paths that do not train
    clip_norm: float = 1.0  # largest global gradient norm; 0: no clipping
    accumulate: int = 1  # micro-batches per step; the batch size stays the same


def make_optimizer(
    optimizer: OptimizerConfig,
    schedule: optax.Schedule,
    params: Any,
    *,
    trains: Any = None,
    total_steps: int = 0,
) -> optax.GradientTransformation:
    """Clips float32 gradients by their global norm and turns them into updates of the parameters.

    `params` is a nested dict of arrays or `jax.ShapeDtypeStruct`s: only paths and shapes are read.
    Parameters for which `trains`, a tree of bools, is False have no state, get zero updates and do
    not count in the gradient norm; unset, it is what `trained` returns. A schedule of the weight
    decay needs `total_steps` of the run.

    Raises ValueError for a regular expression that matches no parameter, a value out of range, and
    if nothing is left to train.
    """
    contract.check_positive(clip_norm=optimizer.clip_norm)
    trains = trained(optimizer, params) if trains is None else trains
    factors = rate_factors(optimizer, params)
    rule = optimizer.rule
    if isinstance(rule, contract.WeightDecay):
        rule = rule.over(total_steps)
    moves = _promoting(rule.updates(schedule, params))
    if factors is not None:
        moves = optax.chain(moves, _scaled(factors))
    if optimizer.clip_norm:
        moves = optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), moves)
    if all(jax.tree.leaves(trains)):
        return moves
    labels = jax.tree.map(lambda t: "trained" if t else "frozen", trains)
    return optax.partition({"trained": moves, "frozen": optax.set_to_zero()}, labels)


def trained(
    optimizer: OptimizerConfig,
    params: Any,
    *,
    statistics: Any = (),
    tuned: Callable[[str], bool] = lambda path: True,
) -> Any:
    """A bool for every parameter: whether it trains.

    The others are those of `optimizer.frozen`, those whose path is not `tuned`, and the running
    averages of norms, which `statistics`, a part of the nested dict `params`, contains. Raises
    ValueError for a regular expression that matches no parameter, and if nothing is left to train.
    """
    frozen = contract.matches(params, optimizer.frozen, field="frozen")
    averages = set(jax.tree.leaves(contract.paths(statistics)))
    trains = jax.tree.map(
        lambda path, is_frozen: not is_frozen and path not in averages and tuned(path),
        contract.paths(params),
        frozen,
    )
    if not any(jax.tree.leaves(trains)):
        raise ValueError(f"config.optimizer.frozen {optimizer.frozen} leaves nothing to train")
    return trains


def peak_rate(optimizer: OptimizerConfig, *, batch_size: int) -> tuple[float, str]:
    """The peak of the schedule at this batch size, and a note where it is not `learning_rate`.

    The note also warns where a recipe states no rule for another batch size. Raises ValueError for
    a rule that has no batch size to begin with.
    """
    stated, rate = optimizer.rate_batch, optimizer.learning_rate
    if optimizer.rate_rule == "sqrt" and not stated:
        raise ValueError(
            "config.optimizer.rate_rule is sqrt, and the batch that the learning rate is for is not"
            " known: set config.optimizer.rate_batch"
        )
    if not stated or stated == batch_size:
        return rate, ""
    if optimizer.rate_rule == "none":
        return rate, (
            f"warning: the learning rate {rate:g} is for batches of {stated}, this run has"
            f" {batch_size}: outside the published recipe, which states no rule"
        )
    share = batch_size / stated
    scaled = rate * (share if optimizer.rate_rule == "linear" else math.sqrt(share))
    rule = f"{rate:g} for batches of {stated}, {optimizer.rate_rule} rule"
    return scaled, f"note: the learning rate is {scaled:g} at batch {batch_size} ({rule})"


def rate_factors(optimizer: OptimizerConfig, params: Any) -> Any:
    """The factor of the learning rate of every parameter: float32 (), or (L, 1, ...) by layer.

    With `layer_decay` d the factor is d ** 0 for the head, d ** 1 for the last block, d ** L for
    the first of L blocks, and d ** (L + 1) for everything before the blocks, as in MAE and BEiT. A
    norm after the blocks has d ** 0; timm uses d ** 1 for a norm before pooling, which
    `rate_factors` can set. Returns None if every factor is 1. Raises ValueError for a value out of
    range.
    """
    if not 0 < optimizer.layer_decay <= 1:
        raise ValueError(
            f"config.optimizer.layer_decay is {optimizer.layer_decay}: it must be in (0, 1]"
        )
    factors = contract.first_matches(params, optimizer.rate_factors, field="rate_factors")
    if optimizer.layer_decay == 1 and not optimizer.rate_factors:
        return None
    depth = _depth(params) if optimizer.layer_decay < 1 else 0

    def whole(path: str, leaf: Any, factor: float) -> np.ndarray:
        below = _layers_below_head(path, depth) if depth else np.zeros(())
        value = factor * optimizer.layer_decay**below
        layered = value.ndim and stack.is_stacked(path)
        shape = (depth, *(1,) * (len(leaf.shape) - 1)) if layered else ()
        return np.asarray(value, np.float32).reshape(shape)

    return jax.tree.map(whole, contract.paths(params), params, factors)


def ema_update(
    ema: Any,
    params: Any,
    *,
    decay: float,
    step: jax.typing.ArrayLike,
    warmup: float = 0.0,
) -> Any:
    """The Polyak average of `params` after one more update: decay * ema + (1 - decay) * params.

    `step`, int (), is the number of updates in `ema` so far, or any number above 0 for an average
    that another run began. At 0 `params` are copied, so that the average never contains the initial
    values (as in timm's ModelEmaV3); then the decay is constant, or with `warmup` p the smaller one
    of `decay` and 1 - (1 + step) ** -p.
    """
    step = jnp.asarray(step)
    weight = jnp.where(step > 0, 1 - decay, 1.0)
    if warmup:
        weight = jnp.maximum(weight, (1 + step.astype(jnp.float32)) ** jnp.float32(-warmup))
    # Not decay * ema + weight * params: in float32 the two factors do not sum to 1, which makes an
    # error of up to 6e-4 at a decay of 0.9999. The error of this form is at most 5e-6.
    return jax.tree.map(lambda e, p: e + weight.astype(e.dtype) * (p - e), ema, params)


def _depth(params: Any) -> int:
    """The number of blocks. Raises ValueError unless there is one stack of them."""
    sizes = {
        leaf.shape[0]
        for path, leaf in zip(
            jax.tree.leaves(contract.paths(params)), jax.tree.leaves(params), strict=True
        )
        if re.match(r"encoder/blocks/", path)
    }
    if len(sizes) != 1:
        raise ValueError(
            "config.optimizer.layer_decay is for Vision Transformers, whose blocks are one stack;"
            " set it to 1 for this model"
        )
    return sizes.pop()


def _layers_below_head(path: str, depth: int) -> np.ndarray:
    """The number of decays from the head's rate: (), or (depth,) for parameters of blocks."""
    if re.match(r"encoder/blocks/", path):
        return np.arange(depth, 0, -1.0)
    before = path.startswith("encoder/") and not re.match(r"encoder/(norm|relative_bias)", path)
    return np.asarray(depth + 1.0 if before else 0.0)


def _scaled(factors: Any) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scaled = contract.map_trained(lambda f, u: u * f.astype(u.dtype), factors, updates)
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _promoting(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same rule under strict dtype promotion, which optax breaks: it computes b1 ** count."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return rule.update(updates, state, params)

    return optax.GradientTransformation(rule.init, update)
