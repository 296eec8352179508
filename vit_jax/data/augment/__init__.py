"""Augmentation on the device: a list of small pure functions of a batch, to be called under jit.

The config lists them in the order in which they are applied. Each is a file here and a line in
`AUGMENTATIONS`. Random numbers are keyed by the `sample_index`, so that results depend neither on
the mesh nor on the number of processes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vit_jax.data.augment.contract import PIXELS, VALUES, Augmentation, Batch, at
from vit_jax.data.augment.erase import Erase
from vit_jax.data.augment.flip import Flip
from vit_jax.data.augment.mix import Mix
from vit_jax.data.augment.mixup import Mixup
from vit_jax.data.augment.value_range import HALF, ValueRange, normalize

__all__ = [
    "AUGMENTATIONS",
    "HALF",
    "Augmentation",
    "Flip",
    "Mixup",
    "ValueRange",
    "at",
    "augment",
    "check",
    "normalize",
]

# The augmentations by their names in a config.
AUGMENTATIONS: dict[str, type[Augmentation]] = {
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


def check(augmentations: Sequence[Augmentation], *, gives: frozenset[str]) -> None:
    """Raises ValueError if one needs what the batch does not hold, or pixels are not normalised.

    `gives` is what the objective adds to a batch of pixels before the augmentations.
    """
    there = gives | {PIXELS}
    streams: dict[int, str] = {}
    for augmentation in augmentations:
        name = name_of(augmentation)
        if (other := streams.setdefault(augmentation.stream, name)) and name != other:
            raise ValueError(
                f"config.augment: {name} and {other} have the same `stream` of random numbers"
            )
        for needed in sorted(augmentation.needs - there):
            raise ValueError(f"config.augment: {name} needs {_missing(needed, gives)}")
        there = (there - augmentation.takes) | augmentation.gives
    if VALUES not in there:
        raise ValueError("config.augment lacks value_range: the model takes normalised values")


def name_of(augmentation: Augmentation) -> str:
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
