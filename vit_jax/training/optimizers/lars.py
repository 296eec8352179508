"""LARS: gradient descent whose rate follows, layer by layer, the size of the parameter."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lars(WeightDecay):
    """LARS (You et al. 2017, arXiv 1708.03888), as in MAE's linear probe.

    The decay is added to the gradient before that is scaled. Parameters that do not match
    `decay_mask` follow plain momentum.
    """

    momentum: float = 0.9  # decay of the sum of scaled gradients
    trust_coefficient: float = 0.001  # size of an update as a share of its parameter's
    moment_dtype: MomentDtype = "float32"  # of the sum of gradients

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        mask = self.decays(params)
        contract.check_fraction(momentum=self.momentum)
        contract.check_positive(trust_coefficient=self.trust_coefficient)
        return optax.chain(
            self.decay(params),
            contract.scale_by_trust_ratio(mask, coefficient=self.trust_coefficient),
            optax.trace(self.momentum, accumulator_dtype=jnp.dtype(self.moment_dtype)),
            optax.scale_by_learning_rate(schedule),
        )
