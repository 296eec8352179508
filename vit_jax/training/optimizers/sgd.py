"""Gradient descent with momentum."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd(WeightDecay):
    """Gradient descent with momentum; decay is added to the gradient, as in PyTorch."""

    momentum: float = 0.9  # decay of the sum of gradients; 0: none
    nesterov: bool = False  # look ahead by one step of momentum
    moment_dtype: MomentDtype = "float32"  # of the sum of gradients

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        contract.check_fraction(momentum=self.momentum)
        sgd = optax.sgd(
            schedule,
            momentum=self.momentum or None,  # None: no accumulator in the state
            nesterov=self.nesterov,
            accumulator_dtype=jnp.dtype(self.moment_dtype),
        )
        decay = self.decay(params)
        return optax.chain(decay, sgd) if self.any_decay else sgd
