"""Weighted means of two samples ("mixup: Beyond Empirical Risk Minimization", 1710.09412)."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vit_jax.data.augment.contract import TARGETS, VALUES, Augmentation, Batch, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup(Augmentation):
    """Mixes every image and its targets with its neighbour's, with one share for the batch."""

    alpha: float = 0.2  # parameter of the Beta distribution of the share

    stream: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset({VALUES, "targets"})

    def __post_init__(self) -> None:
        if not self.alpha > 0:  # refuses NaN too
            raise ValueError(f"mixup's alpha is {self.alpha}: it must be positive")

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        share = mixup_share(at(key, batch["sample_index"][0]), alpha=self.alpha)
        mixed = {name: mix(batch[name], share) for name in ("image", *TARGETS) if name in batch}
        return batch | mixed


def mixup_share(key: jax.Array, *, alpha: float) -> jax.Array:
    """The larger share of mixup: max(x, 1 - x) of x ~ Beta(alpha, alpha), one for the batch."""
    share = jax.random.beta(key, alpha, alpha)
    return jnp.maximum(share, 1 - share)


def mix(values: jax.Array, share: jax.Array) -> jax.Array:
    """Adds `share` of each sample of the global batch and `1 - share` of the previous sample.

    The partner is the neighbour, not a random one: the order of the batch is random already.
    """
    return share * values + (1 - share) * jnp.roll(values, 1, axis=0)
