"""The contracts of augmentations: of batches on the device, and of single images on the host."""

import abc
from typing import ClassVar, Protocol

import jax
import numpy as np

Batch = dict[str, jax.Array]

# The arrays of a batch, float (B, K), that are mixed like its images where they are there.
TARGETS = ("targets", "teacher_targets")
PIXELS, VALUES = "pixels", "values"  # what `image` holds: uint8, or normalised floats


class Augmentation(Protocol):
    """A pure function of a batch. A frozen dataclass: its fields are its part of the config."""

    # The number of its stream of random numbers, different for every augmentation.
    stream: ClassVar[int]
    # What must be in the batch: PIXELS, VALUES, or what the objective gives, such as "targets".
    needs: ClassVar[frozenset[str]] = frozenset({PIXELS})
    # What it removes from the batch, and what it adds.
    takes: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Augmentation":
        """The augmentation for a model with this mean and std of each channel."""
        return self

    def check_labels(self, *, several: bool) -> None:
        """Raises ValueError if its fields do not suit images of one class, or of `several`."""
        return None

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        """Returns the batch with a changed `image` (B, H, W, C) or other entries.

        Random numbers of sample i come from the key `at(key, batch["sample_index"][i])`.
        """
        ...


class HostAugmentation(abc.ABC):
    """A pure function of one image, after the crop. A frozen dataclass like `Augmentation`."""

    # The name of its stream of random numbers, different for every augmentation.
    stream: ClassVar[str]
    channels: ClassVar[tuple[int, ...]] = (1, 3)  # the numbers of channels that it can change

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "HostAugmentation":
        """The augmentation for a model with this mean and std of each channel."""
        return self

    @abc.abstractmethod
    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        """uint8 (H, W, C), float64 (NUMBERS,) in [0, 1) -> uint8 (H, W, C), which may be the same.

        `numbers` belong to the sample and to `stream` (see `counter.draw`). Threads call this.
        """


AnyAugmentation = Augmentation | HostAugmentation


def at(key: jax.Array, sample_index: jax.Array) -> jax.Array:
    """The key of a sample, from both words of its index: a long run passes 2**32 samples."""
    return jax.random.fold_in(jax.random.fold_in(key, sample_index[0]), sample_index[1])
