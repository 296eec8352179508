"""LAMB: Adam whose update is scaled, layer by layer, to the size of the parameter."""

import dataclasses
from typing import Any

import jax
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.adam import scale_by_adam
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lamb(WeightDecay):
    """LAMB (You et al. 2020, arXiv 1904.00962), as timm's: what does not decay is not scaled.

    The decay is added to Adam's update before that is scaled.

    timm clips the gradient to a global norm of 1 by default: `clip_norm` here.
    """

    b1: float = 0.9  # decay of the first moment
    b2: float = 0.999  # decay of the second moment
    eps: float = 1e-6  # added to the root of the second moment
    moment_dtype: MomentDtype = "float32"  # of the first moment
    scale_all: bool = False  # scale the updates of parameters that do not decay, too

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        scaled = jax.tree.map(
            lambda factor: self.scale_all or (factor > 0 and self.any_decay),
            self.decay_rates(params),
        )
        return optax.chain(
            scale_by_adam(self),
            self.decay(params),
            contract.scale_by_trust_ratio(scaled),
            optax.scale_by_learning_rate(schedule),
        )
