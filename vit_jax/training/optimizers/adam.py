"""Adam, with and without decoupled decay."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma & Ba 2015)."""

    b1: float = 0.9  # decay of the first moment
    b2: float = 0.999  # decay of the second moment
    eps: float = 1e-8  # added to the root of the second moment
    moment_dtype: MomentDtype = "float32"  # of the first moment

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        return optax.chain(scale_by_adam(self), optax.scale_by_learning_rate(schedule))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(WeightDecay, Adam):
    """Adam with decay decoupled from the gradient (Loshchilov & Hutter 2019).

    Subtracts the scheduled rate times `weight_decay` times the parameter. big_vision multiplies its
    decay by the schedule but not by the peak rate: its `wd / lr` is the `weight_decay` here.
    """

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        return optax.chain(
            scale_by_adam(self),
            self.decay(params),
            optax.scale_by_learning_rate(schedule),
        )


def scale_by_adam(rule: Any, *, look_ahead: bool = False) -> optax.GradientTransformation:
    """Adam's update for the fields of `rule`, with optax's state and an exact bias correction.

    With `look_ahead` the first moment takes the gradient once more: NAdamW of timm and AlgoPerf.

    In optax, `1 - b2 ** step` is computed in float32, where 0.999 is 0.99900001. For the first
    thousand steps this makes every update 1e-5 shorter than it is in PyTorch.

    Raises ValueError for a field out of range.
    """
    contract.check_fraction(b1=rule.b1, b2=rule.b2)
    contract.check_positive(eps=rule.eps)
    dtype = jnp.dtype(rule.moment_dtype)

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        first = optax.tree.update_moment(gradients, state.mu, rule.b1, 1)
        second = optax.tree.update_moment_per_elem_norm(gradients, state.nu, rule.b2, 2)
        count = optax.safe_increment(state.count)
        first_share, second_share = (_share_of_ones(b, count) for b in (rule.b1, rule.b2))
        ahead = optax.tree.update_moment(gradients, first, rule.b1, 1) if look_ahead else first
        updates = jax.tree.map(
            lambda m, v: m / first_share / (jnp.sqrt(v / second_share) + rule.eps), ahead, second
        )
        moments = {"mu": optax.tree.cast(first, dtype), "nu": second}
        return updates, optax.ScaleByAdamState(count=count, **moments)

    init = optax.scale_by_adam(rule.b1, rule.b2, rule.eps, mu_dtype=dtype).init
    return optax.GradientTransformation(init, update)


def _share_of_ones(decay: float, count: jax.Array) -> jax.Array:
    """1 - decay ** count, float32 (): the average of `count` ones that began at zero."""
    if not decay:
        return jnp.ones(())
    return -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
