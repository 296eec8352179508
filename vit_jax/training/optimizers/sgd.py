"""Gradient descent with momentum."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd(WeightDecay):
    """Gradient descent with momentum; decay is added to the gradient, as in PyTorch.

    With `decoupled_decay`, it is added to the update, as big_vision does: its `wd / lr` is the
    `weight_decay` here.
    """

    momentum: float = 0.9  # decay of the sum of gradients; 0: none
    nesterov: bool = False  # look ahead by one step of momentum
    moment_dtype: MomentDtype = "float32"  # of the sum of gradients
    decoupled_decay: bool = False  # decay is no part of the momentum

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        contract.check_fraction(momentum=self.momentum)
        if self.nesterov and not self.momentum:
            raise ValueError(
                "config.optimizer.nesterov is True, and config.optimizer.momentum is 0: it looks"
                " ahead by the momentum; set one, or leave it out"
            )
        momentum = optax.identity()  # without an accumulator in the state
        if self.momentum:
            momentum = optax.trace(
                decay=self.momentum,
                nesterov=self.nesterov,
                accumulator_dtype=jnp.dtype(self.moment_dtype),
            )
        decay, rate = self.decay(params), optax.scale_by_learning_rate(schedule)
        if self.any_decay and self.decoupled_decay:
            return optax.chain(momentum, decay, rate)
        descent = optax.chain(momentum, rate)
        return optax.chain(decay, descent) if self.any_decay else descent
