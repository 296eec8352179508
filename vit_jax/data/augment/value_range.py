"""From pixels to the value range of the model."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.augment.contract import PIXELS, VALUES, Augmentation, Batch

HALF = (0.5, 0.5, 0.5)  # default mean and std: values in [-1, 1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueRange(Augmentation):
    """Turns uint8 pixels into (pixels in [0, 1] - mean) / std, as `config.data` or the model says.

    Mean and std are not fields of this class, because evaluation uses the same ones.
    """

    stream: ClassVar[int] = 2
    needs: ClassVar[frozenset[str]] = frozenset({PIXELS})
    takes: ClassVar[frozenset[str]] = frozenset({PIXELS})
    gives: ClassVar[frozenset[str]] = frozenset({VALUES})

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Normalise":
        return Normalise(mean=mean, std=std)

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        unset = HALF[:1] * batch["image"].shape[-1]
        return batch | {"image": normalize(batch["image"], mean=unset, std=unset)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalise(ValueRange):
    """A value range with a mean and a std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        return batch | {"image": normalize(batch["image"], mean=self.mean, std=self.std)}


def normalize(
    images: jax.typing.ArrayLike,  # uint8 (B, H, W, C)
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
    """(pixels in [0, 1] - mean) / std, computed in float32.

    Raises ValueError unless there is a mean and a std for each channel.
    """
    channels = np.shape(images)[-1]
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean {tuple(mean)} and std {tuple(std)} are not one number for each of the"
            f" {channels} channels"
        )
    shape = (1, 1, 1, channels)
    center = jnp.asarray(mean, jnp.float32).reshape(shape)
    scale = jnp.asarray(std, jnp.float32).reshape(shape)
    return ((jnp.asarray(images, jnp.float32) / 255 - center) / scale).astype(dtype)
