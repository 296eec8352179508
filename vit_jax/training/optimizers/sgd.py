"""Gradient descent with momentum."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import KERNELS, MomentDtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """Gradient descent with momentum; decay is added to the gradient, as in PyTorch."""

    momentum: float = 0.9  # decay of the sum of gradients; 0: none
    nesterov: bool = False  # look ahead by one step of momentum
    moment_dtype: MomentDtype = "float32"  # of the sum of gradients
    weight_decay: float = 0.0  # times the parameter, added to the clipped gradient
    decay_mask: tuple[str, ...] = KERNELS  # regular expressions of the decayed paths

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        mask = contract.decayed(self, params)
        contract.check_fraction(momentum=self.momentum)
        sgd = optax.sgd(
            schedule,
            momentum=self.momentum or None,  # None: no accumulator in the state
            nesterov=self.nesterov,
            accumulator_dtype=jnp.dtype(self.moment_dtype),
        )
        decay = optax.add_decayed_weights(self.weight_decay, mask=mask)
        return optax.chain(decay, sgd) if self.weight_decay else sgd
