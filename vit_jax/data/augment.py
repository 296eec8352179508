"""Augmentation on the device: flip, value range, mixup. Pure functions, to be called under jit.

Random numbers are keyed by the place of a sample in the run, so that results depend neither on
the mesh nor on the number of hosts. Shapes: B global batch, H, W image, K classes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.options import DataConfig

HALF = (0.5, 0.5, 0.5)  # of mean and std where nothing else is known: values in [-1, 1]


def augment(
    images: jax.Array,  # uint8 (B, H, W, C)
    targets: jax.Array,  # float32 (B, K)
    position: jax.Array,  # uint32 (B, 2), see pipeline.train_batches
    *,
    key: jax.Array,
    data: DataConfig,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> tuple[jax.Array, jax.Array]:
    """Images in `dtype` and targets, as `data` (flip, mean, std, mixup) says. `key`: of the run."""
    flip_key, mixup_key = jax.random.split(key)
    if data.flip:
        images = random_flip(images, position, key=flip_key)
    unset = HALF[:1] * images.shape[-1]
    values = normalize(images, mean=data.mean or unset, std=data.std or unset)
    if data.mixup:
        share = mixup_share(_at(mixup_key, position[0]), alpha=data.mixup)
        values, targets = mix(values, share), mix(targets, share)
    return values.astype(dtype), targets


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


def random_flip(images: jax.Array, position: jax.Array, *, key: jax.Array) -> jax.Array:
    """Mirrors every other image, on average, from left to right."""
    flips = jax.vmap(lambda p: jax.random.bernoulli(_at(key, p)))(position)
    return jnp.where(flips[:, None, None, None], images[:, :, ::-1], images)


def mixup_share(key: jax.Array, *, alpha: float) -> jax.Array:
    """The larger share of mixup: max(x, 1 - x) of x ~ Beta(alpha, alpha), one for the batch."""
    share = jax.random.beta(key, alpha, alpha)
    return jnp.maximum(share, 1 - share)


def mix(values: jax.Array, share: jax.Array) -> jax.Array:
    """`share` of each sample of the global batch, the rest of its predecessor (mixup, 1710.09412).

    The partner is the neighbour, not a random one: the order of the batch is random already.
    """
    return share * values + (1 - share) * jnp.roll(values, 1, axis=0)


def _at(key: jax.Array, position: jax.Array) -> jax.Array:
    """The key of a position; both words count, as a long run passes 2**32 samples."""
    return jax.random.fold_in(jax.random.fold_in(key, position[0]), position[1])
