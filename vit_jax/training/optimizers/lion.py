"""Lion: the sign of an average of gradients."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import KERNELS, MomentDtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lion:
    """Lion (Chen et al. 2023, arXiv 2302.06675): a third to a tenth of AdamW's rate."""

    b1: float = 0.9  # weight of the moment in the sign
    b2: float = 0.99  # decay of the moment
    moment_dtype: MomentDtype = "float32"  # of the moment
    weight_decay: float = 0.0  # times the scheduled rate
    decay_mask: tuple[str, ...] = KERNELS  # regular expressions of the decayed paths

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        mask = contract.decayed(self, params)
        contract.check_fraction(b1=self.b1, b2=self.b2)
        return optax.lion(
            schedule,
            b1=self.b1,
            b2=self.b2,
            mu_dtype=jnp.dtype(self.moment_dtype),
            weight_decay=self.weight_decay,
            mask=mask,
        )
