"""Mirroring from left to right."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from vit_jax.data.augment.contract import PIXELS, Augmentation, Batch, at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flip(Augmentation):
    """Mirrors each image from left to right with probability 1/2."""

    stream: ClassVar[int] = 0
    needs: ClassVar[frozenset[str]] = frozenset({PIXELS})

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        return batch | {"image": random_flip(batch["image"], batch["sample_index"], key=key)}


def random_flip(images: jax.Array, sample_index: jax.Array, *, key: jax.Array) -> jax.Array:
    """Mirrors each image of (B, H, W, C) from left to right with probability 1/2."""
    flips = jax.vmap(lambda index: jax.random.bernoulli(at(key, index)))(sample_index)
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)
