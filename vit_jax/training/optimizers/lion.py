"""Lion: the sign of an average of gradients."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion(WeightDecay):
    """Lion (Chen et al. 2023, arXiv 2302.06675): a third to a tenth of AdamW's rate.

    The decay is multiplied by the scheduled rate, as AdamW's.
    """

    b1: float = 0.9  # weight of the moment in the sign
    b2: float = 0.99  # decay of the moment
    moment_dtype: MomentDtype = "float32"  # of the moment

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        contract.check_fraction(b1=self.b1, b2=self.b2)
        return optax.chain(
            optax.scale_by_lion(self.b1, self.b2, mu_dtype=jnp.dtype(self.moment_dtype)),
            self.decay(params),
            optax.scale_by_learning_rate(schedule),
        )
