"""Augmentations: pure functions of an image on the host, or of a batch on the device, under jit.

The config lists them in the order in which they are applied; those of the host are first. Each is a
file here and a line in `AUGMENTATIONS`. Random numbers are keyed by the `sample_index`, so that
results depend neither on the mesh nor on the number of processes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vit_jax.data.augment.colour_jitter import ColourJitter
from vit_jax.data.augment.contract import (
    PIXELS,
    VALUES,
    AnyAugmentation,
    Augmentation,
    Batch,
    HostAugmentation,
    at,
)
from vit_jax.data.augment.erase import Erase
from vit_jax.data.augment.flip import Flip
from vit_jax.data.augment.mix import Mix
from vit_jax.data.augment.mixup import Mixup
from vit_jax.data.augment.randaugment_big_vision import RandAugmentBigVision
from vit_jax.data.augment.randaugment_timm import RandAugmentTimm
from vit_jax.data.augment.three_augment import ThreeAugment
from vit_jax.data.augment.value_range import HALF, ValueRange, normalize

__all__ = [
    "AUGMENTATIONS",
    "HALF",
    "AnyAugmentation",
    "Augmentation",
    "Flip",
    "HostAugmentation",
    "Mix",
    "Mixup",
    "ValueRange",
    "at",
    "augment",
    "check",
    "name_of",
    "normalize",
    "on_device",
    "on_host",
]

# The augmentations by their names in a config.
AUGMENTATIONS: dict[str, type[AnyAugmentation]] = {
    "randaugment_timm": RandAugmentTimm,
    "randaugment_big_vision": RandAugmentBigVision,
    "three_augment": ThreeAugment,
    "colour_jitter": ColourJitter,
    "flip": Flip,
    "value_range": ValueRange,
    "mixup": Mixup,
    "mix": Mix,
    "erase": Erase,
}


def augment(
    batch: Batch,
    augmentations: Sequence[Augmentation],
    *,
    key: jax.Array,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Batch:
    """Applies the augmentations in order; `image` uint8 (B, H, W, C) becomes `dtype`.

    `batch` must hold sample_index uint32 (B, 2): see `pipeline.train_batches`. `key` is the key of
    the run.
    """
    for augmentation in augmentations:
        batch = augmentation(batch, key=jax.random.fold_in(key, augmentation.stream))
    return batch | {"image": batch["image"].astype(dtype)}


def on_host(augmentations: Sequence[AnyAugmentation]) -> tuple[HostAugmentation, ...]:
    """The augmentations that run on the host, in order."""
    return tuple(a for a in augmentations if isinstance(a, HostAugmentation))


def on_device(augmentations: Sequence[AnyAugmentation]) -> tuple[Augmentation, ...]:
    """The augmentations that run on the device, in order."""
    return tuple(a for a in augmentations if not isinstance(a, HostAugmentation))


def check(
    augmentations: Sequence[AnyAugmentation],
    *,
    gives: frozenset[str],
    channels: int = 3,
    multi_label: bool = False,
) -> None:
    """Raises ValueError if the augmentations cannot be applied in this order.

    One may need what the batch does not hold, or pixels are not normalised, or one of the host
    follows one of the device. `gives` is what the objective adds to a batch of pixels before the
    augmentations of the device; `channels` is the number of the model's channels.
    `multi_label`: images may have several classes, for which an augmentation may need a rule.
    """
    _check_host(augmentations, channels)
    there = gives | {PIXELS}
    streams: dict[int | str, str] = {}
    for augmentation in augmentations:
        name = name_of(augmentation)
        if (other := streams.setdefault(augmentation.stream, name)) and name != other:
            raise ValueError(
                f"config.augment: {name} and {other} have the same `stream` of random numbers"
            )
    for augmentation in on_device(augmentations):
        for needed in sorted(augmentation.needs - there):
            missing = _missing(needed, gives)
            raise ValueError(f"config.augment: {name_of(augmentation)} needs {missing}")
        augmentation.check_labels(several=multi_label)
        there = (there - augmentation.takes) | augmentation.gives
    if VALUES not in there:
        raise ValueError("config.augment lacks value_range: the model takes normalised values")


def _check_host(augmentations: Sequence[AnyAugmentation], channels: int) -> None:
    """Raises ValueError if one of the host follows one of the device, or lacks the channels."""
    first_of_device = ""
    for augmentation in augmentations:
        name = name_of(augmentation)
        if not isinstance(augmentation, HostAugmentation):
            first_of_device = first_of_device or name
            continue
        if first_of_device:
            raise ValueError(
                f"config.augment: {name} runs on the host, before {first_of_device}, which runs on"
                f" the device: put {name} before {first_of_device}"
            )
        if channels not in augmentation.channels:
            known = " or ".join(map(str, augmentation.channels))
            raise ValueError(
                f"config.augment: {name} changes images with {known} channels, and the model has"
                f" {channels}: leave it out"
            )


def name_of(augmentation: AnyAugmentation) -> str:
    """The name of an augmentation in a config."""
    kinds = {kind: name for name, kind in AUGMENTATIONS.items()}
    return kinds.get(type(augmentation), type(augmentation).__name__)


def _missing(needed: str, gives: frozenset[str]) -> str:
    """The part of a message that says what is missing and what to do."""
    if needed == VALUES:
        return "normalised values: put value_range before it"
    if needed == PIXELS:
        return "uint8 pixels: put it before value_range"
    has = f"it gives {', '.join(sorted(gives))}" if gives else "it gives nothing"
    return f"{needed} from the objective, which does not give them ({has}): leave it out"
