"""Masked autoencoding: the error of the predicted pixels of hidden patches.

"Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377). Shapes: B images, N patches,
P pixels of a patch in the order row, column, channel.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vit_jax.data.augment import at
from vit_jax.data.record import DataFacts
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.masked_autoencoder import MaskedAutoencoderOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.zoo import Options
from vit_jax.objectives.contract import Batch, Direction, Frozen, Loss, Objective, Restored
from vit_jax.objectives.pixels import patches, statistics

_NOISE = 3  # the random stream of the masks; the augmentations have other numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoding(Objective):
    """Mean squared error of the pixels of hidden patches, predicted from the visible patches."""

    mask_ratio: float = 0.75  # share of the patches that are hidden
    normalise: bool = True  # normalise every target patch to zero mean and unit variance

    metrics: ClassVar[Mapping[str, Direction]] = {"loss": "min"}
    exact_images: ClassVar[bool] = True  # the images are the target

    def __post_init__(self) -> None:
        if not 0 < self.mask_ratio < 1:
            raise ValueError(
                f"config.objective.mask_ratio is {self.mask_ratio}: give more than 0 and less"
                " than 1"
            )

    @property
    def encoded(self) -> float:
        return 1 - self.mask_ratio

    def check_kind(self, base: Options) -> None:
        masked_autoencoder(base)

    def model(self, base: Options, facts: DataFacts) -> Options:
        options = masked_autoencoder(base)
        rows, columns = options.grid
        if not 0 < int(rows * columns * (1 - self.mask_ratio)) < rows * columns:
            raise ValueError(
                f"config.objective.mask_ratio {self.mask_ratio} leaves no visible or no hidden"
                f" patch of {rows * columns}: use smaller patches, or another ratio"
            )
        return options

    def prepare(self, batch: Batch, *, options: Any, key: jax.Array) -> Batch:
        noise = patch_noise(batch["sample_index"], options, key=jax.random.fold_in(key, _NOISE))
        return batch | {"noise": noise}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        error, mask = self._errors(model, batch["image"], batch["noise"], key)
        return Loss(error.sum(axis=1), mask.sum(axis=1, dtype=jnp.float32))

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        """The loss. The mask of an image is the same in all evaluations."""
        noise = patch_noise(batch["sample_index"], model.options, key=jax.random.key(_NOISE))
        error, mask = self._errors(model, batch["image"], noise, None)
        loss = error.sum(axis=1) / mask.sum(axis=1, dtype=jnp.float32)
        return {"loss": jnp.where(batch["mask"], loss, 0).sum()}

    def restored(
        self, model: Any, batch: Batch, *, frozen: Frozen, decode: Callable[..., Any] | None
    ) -> Restored:
        images = batch["image"].astype(jnp.float32)
        noise = patch_noise(batch["sample_index"], model.options, key=jax.random.key(_NOISE))
        predicted, mask = model.reconstruct(images, noise=noise, mask_ratio=self.mask_ratio)
        true, hidden = patches(images, model.options.patch_size), mask[..., None]
        if self.normalise:
            mean, deviation = statistics(true)
            predicted = predicted * deviation + mean
        return Restored(jnp.where(hidden, jnp.nan, true), jnp.where(hidden, predicted, true))

    @property
    def restoring(self) -> str:
        if not self.normalise:
            return ""
        return "each predicted patch was given the mean and deviation of the true patch"

    def _errors(
        self, model: Any, images: jax.Array, noise: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """The errors (B, N) of hidden patches, 0 for visible ones, and the mask (B, N) bool."""
        prediction, mask = model.reconstruct(
            images, noise=noise, mask_ratio=self.mask_ratio, key=key
        )
        target = targets(images, model.options.patch_size, normalise=self.normalise)
        return jnp.where(mask, patch_errors(prediction, target), 0), mask


def masked_autoencoder(base: Options) -> MaskedAutoencoderOptions:
    """The masked autoencoder with the encoder of `base`. Raises ValueError if that cannot be."""
    if isinstance(base, MaskedAutoencoderOptions):
        return base
    if not isinstance(base, ViTOptions) or base.stem:
        raise ValueError(
            f"config.objective is mae, which cannot train a {base.kind}: it needs an encoder that"
            " reads the patches of the image one by one, such as that of MAE-pretrain-B/16"
        )
    return MaskedAutoencoderOptions.around(base, fixed_position=True)


def patch_noise(sample_index: jax.Array, options: EncoderOptions, *, key: jax.Array) -> jax.Array:
    """Uniform numbers (B, N) for the patches of every sample; the largest are hidden."""
    patches = options.grid[0] * options.grid[1]
    return jax.vmap(lambda index: jax.random.uniform(at(key, index), (patches,)))(sample_index)


def targets(
    images: jax.Array,  # (B, height, width, channels)
    patch_size: tuple[int, int],
    *,
    normalise: bool,
) -> jax.Array:
    """The target of the prediction, float32 (B, N, P).

    With `normalise` every patch has zero mean and unit variance (section 4.1, "reconstruction
    target").
    """
    target = patches(images.astype(jnp.float32), patch_size)
    if not normalise:
        return target
    mean, deviation = statistics(target)
    return (target - mean) / deviation


def patch_errors(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error of every patch, float32 (B, N), between two arrays (B, N, P)."""
    assert prediction.shape == target.shape, (prediction.shape, target.shape)
    return jnp.square(prediction.astype(jnp.float32) - target).mean(axis=-1)
