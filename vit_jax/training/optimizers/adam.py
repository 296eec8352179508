"""Adam, with and without decoupled decay."""

import dataclasses
from typing import Any

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
        return optax.adam(schedule, **adam_options(self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(WeightDecay, Adam):
    """Adam with decay decoupled from the gradient (Loshchilov & Hutter 2019).

    Subtracts the scheduled rate times `weight_decay` times the parameter. big_vision multiplies its
    decay by the schedule but not by the peak rate: its `wd / lr` is the `weight_decay` here.
    """

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale_by_adam(**adam_options(self)),
            self.decay(params),
            optax.scale_by_learning_rate(schedule),
        )


def adam_options(rule: Any) -> dict[str, Any]:
    """The fields of Adam as optax calls them. Raises ValueError for one out of range."""
    contract.check_fraction(b1=rule.b1, b2=rule.b2)
    contract.check_positive(eps=rule.eps)
    moment_dtype = jnp.dtype(rule.moment_dtype)
    return {"b1": rule.b1, "b2": rule.b2, "eps": rule.eps, "mu_dtype": moment_dtype}
