"""The contract between what is minimised and the step, the evaluation and the design of a run.

Shapes: B examples of a batch. A batch is a dict of arrays whose first axis is B; it may be the
global batch or a micro-batch of it, and its arrays may be split over devices.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax

from vit_jax.data.record import DataFacts
from vit_jax.models.zoo import Options

Batch = dict[str, jax.Array]
Direction = Literal["max", "min"]
# Models by the names of `Objective.frozen_models`. They take the images that the trained model
# takes, whatever value range is their own.
Frozen = Mapping[str, Callable[..., Any]]


class FrozenModel(NamedTuple):
    """A checkpoint that an objective needs and that does not train: a teacher, a tokenizer."""

    path: str  # of a run or of a released file
    field: str  # the field of the objective that holds the path, for messages
    has_classes: bool = True  # whether its logits are those of the data's classes
    evaluated: bool = True  # whether evaluations need it too, not only the loss


class Loss(NamedTuple):
    """Of a batch. What is minimised is sum(values) / sum(weights) over the global batch.

    So the result does not depend on how the batch is cut into micro-batches, devices or masks.
    """

    values: jax.Array  # float32 (B,), each already times its weight
    weights: jax.Array  # float32 (B,), which do not depend on the parameters
    extras: dict[str, jax.Array] = {}  # float32 (B,) each, reported as sum / sum(weights)


class Objective(Protocol):
    """What is minimised. A frozen dataclass: its fields are its part of the config."""

    # Of `measure`: which way each gets better. Any of them may choose the best checkpoint.
    metrics: ClassVar[Mapping[str, Direction]]
    # What of a training batch goes to the device. Without "label", images need none.
    inputs: ClassVar[tuple[str, ...]] = ("image", "sample_index")
    # What `prepare` adds to a batch for augmentations to change along with the images.
    gives: ClassVar[frozenset[str]] = frozenset()

    # Whether the loss needs the images in float32, not in the dtype that the model computes in.
    exact_images: ClassVar[bool] = False

    def check_kind(self, base: Options) -> None:
        """Raises ValueError if it cannot train models such as `base`, whatever their sizes are."""
        return None

    def model(self, base: Options, facts: DataFacts) -> Options:
        """The options of the task model that it trains, from those of a model of the zoo.

        Raises ValueError where that model, or these data, cannot serve it.
        """
        ...

    def adopted(self, options: Options) -> Options:
        """The options of a checkpoint that training starts from, without parts of other tasks."""
        return options

    def frozen_models(self) -> Mapping[str, FrozenModel]:
        """Checkpoints of models that the loss needs and that do not train, by name."""
        return {}

    def check_frozen(self, options: Options, frozen: Mapping[str, Options]) -> None:
        """Raises ValueError where a frozen model does not fit the one that trains."""
        return None

    def prepare(self, batch: Batch, *, options: Options, key: jax.Array) -> Batch:
        """Adds what the loss needs of every sample: targets, masks. Runs on the device.

        Before the augmentations, so that they can change it. Random numbers are keyed by
        `batch["sample_index"]`, uint32 (B, 2). `key`: of the run.
        """
        return batch

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        """Of a prepared and augmented batch: images float (B, height, width, channels)."""
        ...

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        """Of held-out images: the sum of each metric over the examples that count, float32 ().

        `batch` holds image float (B, height, width, channels), label int32 (B,), sample_index
        uint32 (B, 2), and mask bool (B,), which is false for padding, broken images, and images
        without a label where `inputs` names it. The sums are divided by their number at the end.
        """
        ...
