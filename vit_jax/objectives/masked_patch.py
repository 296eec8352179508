"""Masked patch prediction: the colours of corrupted patches, predicted from the whole image.

"An Image is Worth 16x16 Words" (arXiv 2010.11929), section 4.6 and appendix B.1.2. Shapes: B
images, N patches, C channels, P pixels of a patch times channels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vit_jax.data.augment import at
from vit_jax.data.record import DataFacts
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.masked_image_model import MaskedImageModelOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.zoo import Options
from vit_jax.objectives.contract import Batch, Direction, Frozen, Loss, Objective, Restored
from vit_jax.objectives.pixels import denormalised, normalised, patches, places_of

Target = Literal["mean_colour", "colours_4x4", "pixels"]

_BINS = 8  # values of each channel: 3 bits
_SIDE = 4  # `colours_4x4` reduces a patch to 4 x 4 pixels
_STREAM = 3  # the random stream of the corruption; the augmentations have other numbers
# Shares of the corrupted patches that become a mask token, or another patch; the rest stays.
_MASKED, _REPLACED = 0.8, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPatchPrediction(Objective):
    """Predicts the colours, or the pixels, of corrupted patches of an image."""

    # mean_colour: the mean colour of a patch as one of 512 (3 bits per channel); colours_4x4: such
    # a colour for each pixel of the patch resized to 4x4; pixels: all pixels, by squared error.
    target: Target = "mean_colour"
    corrupt: float = 0.5  # share of the patches that are corrupted and predicted

    metrics: ClassVar[Mapping[str, Direction]] = {"loss": "min"}
    exact_images: ClassVar[bool] = True  # the images are the target

    def __post_init__(self) -> None:
        if not 0 < self.corrupt < 1:
            raise ValueError(
                f"config.objective.corrupt is {self.corrupt}: give more than 0 and less than 1"
            )

    def check_kind(self, base: Options) -> None:
        masked_image_model(base, objective="masked_patch")

    def model(self, base: Options, facts: DataFacts) -> Options:
        encoder = masked_image_model(base, objective="masked_patch")
        rows, columns = encoder.grid
        if not 0 < _corrupted(rows * columns, self.corrupt) < rows * columns:
            raise ValueError(
                f"config.objective.corrupt {self.corrupt} corrupts all or none of {rows * columns}"
                " patches: use smaller patches, or another share"
            )
        return dataclasses.replace(encoder, mim_classes=self._outputs(encoder))

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "MaskedPatchPrediction":
        return _Bound(target=self.target, corrupt=self.corrupt, mean=mean, std=std)

    def prepare(self, batch: Batch, *, options: Any, key: jax.Array) -> Batch:
        key = jax.random.fold_in(key, _STREAM)
        return (
            batch
            | corruption(batch["sample_index"], options, share=self.corrupt, key=key)._asdict()
        )

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        changes = Corruption(**{name: batch[name] for name in Corruption._fields})
        errors = self._errors(model, batch["image"], changes, key)
        weights = changes.corrupted.sum(axis=1, dtype=jnp.float32)
        return Loss(errors.sum(axis=1), weights)

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        """The loss. The corruption of an image is the same in all evaluations."""
        changes = corruption(
            batch["sample_index"], model.options, share=self.corrupt, key=jax.random.key(_STREAM)
        )
        errors = self._errors(model, batch["image"], changes, None)
        loss = errors.sum(axis=1) / changes.corrupted.sum(axis=1, dtype=jnp.float32)
        return {"loss": jnp.where(batch["mask"], loss, 0).sum()}

    def restored(
        self, model: Any, batch: Batch, *, frozen: Frozen, decode: Callable[..., Any] | None
    ) -> Restored:
        options = model.options
        changes = corruption(
            batch["sample_index"], options, share=self.corrupt, key=jax.random.key(_STREAM)
        )
        images = batch["image"].astype(jnp.float32)
        outputs = model.patch_logits(images, mask=changes.masked, source=changes.source)
        if self.target != "pixels":
            side = _SIDE if self.target == "colours_4x4" else 1
            best = outputs.reshape(*outputs.shape[:2], side**2, -1).argmax(-1)
            pixels = pixels_of(best, options.patch_size, channels=options.channels)
            shape = (*pixels.shape[:2], -1, options.channels)
            outputs = self._normal(pixels.reshape(shape)).reshape(pixels.shape)
        true = patches(images, options.patch_size)
        other = jnp.take_along_axis(true, changes.source[..., None], axis=1)
        return Restored(
            jnp.where(changes.masked[..., None], jnp.nan, other),
            jnp.where(changes.corrupted[..., None], outputs, true),
        )

    @property
    def restoring(self) -> str:
        others = "some visible patches are another patch of the image"
        if self.target == "pixels":
            return others
        return f"{others}; predicted colours are the middle of their bin"

    def _errors(
        self, model: Any, images: jax.Array, changes: "Corruption", key: jax.Array | None
    ) -> jax.Array:
        """Errors (B, n) of the n corrupted patches, float32. The head is computed for them only."""
        count = _corrupted(changes.corrupted.shape[1], self.corrupt)
        places = places_of(changes.corrupted, count)
        outputs = model.patch_logits(
            images, mask=changes.masked, source=changes.source, at=places, key=key
        )
        images, size = images.astype(jnp.float32), model.options.patch_size
        if self.target == "pixels":
            targets = jnp.take_along_axis(patches(images, size), places[..., None], axis=1)
            return jnp.square(outputs - targets).mean(axis=-1)
        side = _SIDE if self.target == "colours_4x4" else 1
        targets = colours(self._pixels(images), size, side=side)
        return colour_errors(outputs, jnp.take_along_axis(targets, places[..., None], axis=1))

    def _pixels(self, images: jax.Array) -> jax.Array:
        """Normalised images with their values in [0, 1] again."""
        raise NotImplementedError("the mean and std are unknown: call `bound` first")

    def _normal(self, pixels: jax.Array) -> jax.Array:
        """Pixels (..., C) with values in [0, 1], normalised like the images."""
        raise NotImplementedError("the mean and std are unknown: call `bound` first")

    def _outputs(self, options: EncoderOptions) -> int:
        """Outputs of the head for each patch. Raises ValueError if the target does not fit."""
        colours = _BINS**options.channels
        if self.target == "mean_colour":
            return colours
        if self.target == "pixels":
            return options.patch_size[0] * options.patch_size[1] * options.channels
        if any(side % _SIDE for side in options.patch_size):
            raise ValueError(
                f"config.objective.target is {self.target}, which needs a patch size that is a"
                f" multiple of {_SIDE}, not {options.patch_size}"
            )
        return colours * _SIDE**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bound(MaskedPatchPrediction):
    """The objective with the mean and std of the normalised images, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _pixels(self, images: jax.Array) -> jax.Array:
        return denormalised(images, mean=self.mean, std=self.std)

    def _normal(self, pixels: jax.Array) -> jax.Array:
        return normalised(pixels, mean=self.mean, std=self.std)


class Corruption(NamedTuple):
    """What is done to the patches of every image before the encoder sees them."""

    corrupted: jax.Array  # bool (B, N): predicted
    masked: jax.Array  # bool (B, N): those of them that become the mask token
    source: jax.Array  # int32 (B, N): the patch whose embedding is used; mostly the patch itself


def corruption(
    sample_index: jax.Array,  # uint32 (B, 2)
    options: EncoderOptions,
    *,
    share: float,
    key: jax.Array,
) -> Corruption:
    """Corrupts `share` of the patches of each image, as many in every image (appendix B.1.2)."""
    count = options.grid[0] * options.grid[1]

    def of_sample(index: jax.Array) -> Corruption:
        order, kind, other = jax.random.split(at(key, index), 3)
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(order, (count,))))
        corrupted = rank < _corrupted(count, share)
        kinds = jax.random.uniform(kind, (count,))
        masked = corrupted & (kinds < _MASKED)
        replaced = corrupted & ~masked & (kinds < _MASKED + _REPLACED)
        own = jnp.arange(count)
        step = jax.random.randint(other, (count,), 1, count)  # never to the patch itself
        source = jnp.where(replaced, (own + step) % count, own)
        return Corruption(corrupted, masked, source)

    return jax.vmap(of_sample)(sample_index)


def colours(pixels: jax.Array, patch_size: tuple[int, int], *, side: int = 1) -> jax.Array:
    """The 3-bit colours int32 (B, N, side * side) of images with values in [0, 1].

    Each patch is averaged down to side x side pixels. A colour is r + 8 g + 64 b of the bins of its
    channels. A value between two bins belongs to the lower one.
    """
    whole = patches(jnp.minimum(pixels, 1), patch_size)  # (B, N, P)
    shape = (patch_size[0] // side, side, patch_size[1] // side, pixels.shape[-1])
    means = whole.reshape(*whole.shape[:2], side, *shape).mean(axis=(3, 5))  # (B, N, side, side, C)
    borders = jnp.arange(1, _BINS, dtype=jnp.float32) / _BINS
    bins = jnp.searchsorted(borders, means, side="left")
    weights = _BINS ** jnp.arange(pixels.shape[-1])
    return (bins @ weights).reshape(*whole.shape[:2], side * side)


def pixels_of(colours: jax.Array, patch_size: tuple[int, int], *, channels: int) -> jax.Array:
    """The pixels of patches (B, N, P), in [0, 1], of colours (B, N, side * side) of `colours`.

    Each colour is the middle of its bins, and fills its part of the patch.
    """
    side = round(colours.shape[-1] ** 0.5)
    bins = colours[..., None] // _BINS ** jnp.arange(channels)[None, None, None] % _BINS
    values = ((bins.astype(jnp.float32) + 0.5) / _BINS).reshape(
        *colours.shape[:2], side, side, channels
    )
    for axis, size in ((2, patch_size[0]), (3, patch_size[1])):
        values = jnp.repeat(values, size // side, axis=axis)
    return values.reshape(*colours.shape[:2], -1)


def colour_errors(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy (B, N) of colours (B, N, S): the mean over the S pixels of a patch.

    `logits`: (B, N, S times the number of colours), those of one pixel side by side.
    """
    logits = logits.reshape(*labels.shape, -1).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(axis=-1)


def _corrupted(count: int, share: float) -> int:
    """How many of `count` patches."""
    return round(count * share)


def masked_image_model(base: Options, *, objective: str) -> MaskedImageModelOptions:
    """A masked image model with the encoder of `base`. Raises ValueError if that cannot be."""
    if isinstance(base, MaskedImageModelOptions):
        return base
    if not isinstance(base, ViTOptions) or base.stem:
        raise ValueError(
            f"config.objective is {objective}, which cannot train a {base.kind}: it needs a Vision"
            " Transformer that embeds patches of the image itself, such as B/16"
        )
    return MaskedImageModelOptions.around(base, mask_token=True)
