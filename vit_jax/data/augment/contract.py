"""What an augmentation is."""

from typing import ClassVar, Protocol

import jax

Batch = dict[str, jax.Array]

PIXELS, VALUES = "pixels", "values"  # what `image` holds: uint8, or normalised floats


class Augmentation(Protocol):
    """A pure function of a batch. A frozen dataclass: its fields are its part of the config."""

    # The number of its own stream of random numbers, another one for each augmentation.
    stream: ClassVar[int]
    # What must be in the batch: PIXELS, VALUES, or what the objective gives, such as "targets".
    needs: ClassVar[frozenset[str]] = frozenset({PIXELS})
    # What is in the batch no more, and what is new.
    takes: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Augmentation":
        """The augmentation for a model whose pixels have this mean and std, by channel."""
        return self

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        """The batch with `image` (B, H, W, C), and what goes with it, changed.

        Numbers of a sample are drawn from `at(key, batch["sample_index"][i])`.
        """
        ...


def at(key: jax.Array, sample_index: jax.Array) -> jax.Array:
    """The key of a sample; both words count, as a long run passes 2**32 samples."""
    return jax.random.fold_in(jax.random.fold_in(key, sample_index[0]), sample_index[1])
