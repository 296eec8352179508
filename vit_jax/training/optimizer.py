"""Optimizers: Optax rules, and regular expressions over parameter paths.

A path joins the keys of a nested dict with "/", such as `encoder/blocks/mlp/fc1/kernel`. The state
of an optimizer repeats the nested dict of the parameters for each moment, below a prefix. So the
rules that shard a parameter by its path also shard its moments.
"""

import dataclasses
import re
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import optax

from vit_jax import schema

MomentDtype = Literal["float32", "bfloat16"]


class Rule(Protocol):
    """An entry of `OPTIMIZERS`: a dataclass whose fields are part of the config."""

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        """Turns clipped gradients into updates of `params`, of which only the paths are read.

        Raises ValueError for a field out of range.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015)."""

    b1: float = 0.9  # decay of the first moment
    b2: float = 0.999  # decay of the second moment
    eps: float = 1e-8  # added to the root of the second moment
    moment_dtype: MomentDtype = "float32"  # of the first moment

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        return optax.adam(schedule, **_adam(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decay decoupled from the gradient (Loshchilov & Hutter 2019).

    Subtracts the scheduled rate times `weight_decay` times the parameter. big_vision multiplies its
    decay by the schedule but not by the peak rate: its `wd / lr` is the `weight_decay` here.
    """

    weight_decay: float = 0.0  # times the scheduled rate
    decay_mask: tuple[str, ...] = ("kernel$",)  # regular expressions of the decayed paths

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        mask, decay = _decayed(self, params), self.weight_decay
        return optax.adamw(schedule, **_adam(self), weight_decay=decay, mask=mask)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """Gradient descent with momentum; decay is added to the gradient, as in PyTorch."""

    momentum: float = 0.9  # decay of the sum of gradients; 0: none
    nesterov: bool = False  # look ahead by one step of momentum
    moment_dtype: MomentDtype = "float32"  # of the sum of gradients
    weight_decay: float = 0.0  # times the parameter, added to the clipped gradient
    decay_mask: tuple[str, ...] = ("kernel$",)  # regular expressions of the decayed paths

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        mask = _decayed(self, params)
        _check_fraction(momentum=self.momentum)
        sgd = optax.sgd(
            schedule,
            momentum=self.momentum or None,  # None: no accumulator in the state
            nesterov=self.nesterov,
            accumulator_dtype=jnp.dtype(self.moment_dtype),
        )
        decay = optax.add_decayed_weights(self.weight_decay, mask=mask)
        return optax.chain(decay, sgd) if self.weight_decay else sgd


OPTIMIZERS: dict[str, type[Rule]] = {"adamw": AdamW, "adam": Adam, "sgd": Sgd}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer. Paths of parameters are such as `encoder/blocks/mlp/fc1/kernel`."""

    rule: Rule = schema.choice(OPTIMIZERS, "adamw", key="name")  # how gradients become updates
    learning_rate: float = 1e-3  # peak of the schedule
    frozen: tuple[str, ...] = ()  # regular expressions of the paths that do not train
    clip_norm: float = 1.0  # largest global gradient norm; 0: no clipping
    accumulate: int = 1  # micro-batches per step; the batch size stays the same


def make_optimizer(
    optimizer: OptimizerConfig, schedule: optax.Schedule, params: Any
) -> optax.GradientTransformation:
    """Clips float32 gradients by their global norm and turns them into updates of the parameters.

    `params` is a nested dict of arrays or `jax.ShapeDtypeStruct`s: only its paths are read.
    Frozen parameters have no state, get zero updates and do not count in the gradient norm.

    Raises ValueError for a regular expression that matches no parameter, a value out of range, and
    if nothing is left to train.
    """
    _check_positive(clip_norm=optimizer.clip_norm)
    frozen = _matches(params, optimizer.frozen, field="frozen")
    moves = _promoting(optimizer.rule.updates(schedule, params))
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

    `step`, int (), is the number of updates in `ema` so far. At 0 `params` are copied, so that the
    average never contains the initial values (as in timm's ModelEmaV3); then the decay is constant.
    """
    weight = jnp.where(jnp.asarray(step) > 0, 1 - decay, 1.0)
    # Not decay * ema + weight * params: in float32 the two factors do not sum to 1, which makes an
    # error of up to 6e-4 at a decay of 0.9999. The error of this form is at most 5e-6.
    return jax.tree.map(lambda e, p: e + weight.astype(e.dtype) * (p - e), ema, params)


def _adam(rule: Adam) -> dict[str, Any]:
    _check_fraction(b1=rule.b1, b2=rule.b2)
    _check_positive(eps=rule.eps)
    moment_dtype = jnp.dtype(rule.moment_dtype)
    return {"b1": rule.b1, "b2": rule.b2, "eps": rule.eps, "mu_dtype": moment_dtype}


def _decayed(rule: AdamW | Sgd, params: Any) -> Any:
    """A bool for every parameter: does it decay?"""
    _check_positive(weight_decay=rule.weight_decay)
    # The default may match nothing: a model need not have kernels.
    default = rule.decay_mask == AdamW.decay_mask
    return _matches(params, rule.decay_mask, field="decay_mask", may_miss=default)


def _promoting(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same rule under strict dtype promotion, which optax breaks: it computes b1 ** count."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return rule.update(updates, state, params)

    return optax.GradientTransformation(rule.init, update)


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
                f"config.optimizer.{field}: {pattern!r} is not a regular expression: {error}"
            ) from error
        if not (any(hits) or may_miss):
            raise ValueError(
                f"config.optimizer.{field}: {pattern!r} matches no parameter:"
                f" choose from {', '.join(paths)}"
            )
        matched = [a or b for a, b in zip(matched, hits, strict=True)]
    return jax.tree.unflatten(treedef, matched)


def _check_fraction(**fields: float) -> None:
    for field, value in fields.items():
        if not 0 <= value < 1:
            raise ValueError(f"config.optimizer.{field} is {value}: it must be in [0, 1)")


def _check_positive(**fields: float) -> None:
    for field, value in fields.items():
        if value < 0:
            raise ValueError(f"config.optimizer.{field} is {value}: it must not be negative")
