"""The contract between an objective and the step, the evaluation and the design of a run.

Shapes: B examples of a batch. A batch is a dict of arrays whose first axis is B. It may be the
global batch or a micro-batch, and its arrays may be split over devices.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import numpy as np

from vit_jax.data.record import DataFacts
from vit_jax.models.zoo import Options

Batch = dict[str, jax.Array]
Direction = Literal["max", "min"]
# Models by the names of `Objective.frozen_models`. They take the images of the trained model, and
# convert them to the value range, size and channels that they were trained with.
Frozen = Mapping[str, Callable[..., Any]]


class FrozenModel(NamedTuple):
    """A checkpoint that an objective needs and that does not train: a teacher, a tokenizer."""

    path: str  # of a run or of a released file
    field: str  # the field of the objective that holds the path, for messages
    has_classes: bool = True  # whether its logits are those of the data's classes
    evaluated: bool = True  # whether evaluations need it too, not only the loss
    interpolation: Literal["bicubic", "lanczos3"] = "bicubic"  # resizes images to its size


class TableFile(NamedTuple):
    """A file with a row for every training image, which `vit_jax label` writes."""

    path: str
    field: str  # the field of the objective that holds the path, for messages
    logits: bool  # whether a row is logits float16 (K,) of K classes, else a class int32 ()


class Loss(NamedTuple):
    """The loss of a batch. Training minimises sum(values) / sum(weights) over the global batch.

    So the result does not depend on how the batch is split into micro-batches or over devices.
    """

    values: jax.Array  # float32 (B,), each already multiplied by its weight
    weights: jax.Array  # float32 (B,), independent of the parameters
    extras: dict[str, jax.Array] = {}  # float32 (B,) each, reported as sum / sum(weights)


class Restored(NamedTuple):
    """Images of which a model predicted the hidden patches, in the value range of its images.

    Both are float32 (B, N, P): N patches in raster order, of P pixels in the order row, column,
    channel.
    """

    seen: jax.Array  # what the model saw; NaN in hidden patches
    predicted: jax.Array  # the prediction of the patches that count in the loss; others as they are


class Answers(NamedTuple):
    """What a classifier answers for each image: its k most probable classes, the first is best."""

    classes: jax.Array  # int32 (B, k)
    probabilities: jax.Array  # float32 (B, k)


ANSWERS = "answers"  # the name of the Answers among the results of `measure`


class Objective(Protocol):
    """What training minimises. A frozen dataclass: its fields are its part of the config."""

    # The metrics of `measure`, and whether the largest or the smallest value is the best. Each of
    # them may choose the best checkpoint.
    metrics: ClassVar[Mapping[str, Direction]]
    # The arrays of a training batch that go to the devices. Without "label", images need no label.
    inputs: ClassVar[tuple[str, ...]] = ("image", "sample_index")
    # The arrays that `prepare` adds to a batch and that augmentations may change with the images.
    gives: ClassVar[frozenset[str]] = frozenset()
    # Whether `measure` gives the `Answers` for images of one label.
    classifies: ClassVar[bool] = False
    # Whether the loss needs the images in float32 instead of the dtype of the model.
    exact_images: ClassVar[bool] = False

    @property
    def encoded(self) -> float:
        """The share of the patches that the encoder gets in training."""
        return 1.0

    def check_kind(self, base: Options) -> None:
        """Raises ValueError if it can train no model of this kind, whatever its sizes are."""
        return None

    def model(self, base: Options, facts: DataFacts) -> Options:
        """The options of the task model that it trains, made of those of a model of the zoo.

        Raises ValueError if it cannot train that model, or not on these data.
        """
        ...

    def adopted(self, options: Options) -> Options:
        """The options of a checkpoint to start from, without the parts of other tasks."""
        return options

    def frozen_models(self) -> Mapping[str, FrozenModel]:
        """The frozen models that it needs, by name."""
        return {}

    def tables(self) -> Mapping[str, TableFile]:
        """The files with a row for every training image that it needs.

        Each is named like the array that it adds to a training batch.
        """
        return {}

    def fit_frozen(self, options: Options, frozen: Mapping[str, Options]) -> Mapping[str, Options]:
        """The options of the frozen models beside the model that trains: it may set `image_size`.

        Raises ValueError if a frozen model does not fit the model that trains.
        """
        return frozen

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "Objective":
        """The objective for images that are normalised with this mean and std, by channel.

        Only a bound objective is asked for `loss` and `measure`.
        """
        return self

    def prepare(self, batch: Batch, *, options: Options, key: jax.Array) -> Batch:
        """Adds what the loss needs of every sample, such as targets or masks, on the device.

        It runs before the augmentations, so that they can change what it adds. Derive random
        numbers from `key`, which is the same at every step, and `batch["sample_index"]`,
        uint32 (B, 2).
        """
        return batch

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        """The loss of a prepared and augmented batch: image float (B, height, width, channels)."""
        ...

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, Any]:
        """The sum of each metric, float32 (), over the held-out images that count.

        An objective that `classifies` adds the `Answers` for images of one label, named ANSWERS.

        `batch` holds image float (B, height, width, channels), label int32 (B,), sample_index
        uint32 (B, 2), and mask bool (B,). The mask is False for padding and broken images, and for
        images without a label if `inputs` has "label". At the end of the split `finished` makes
        the metrics of the sums.
        """
        ...

    def restored(
        self, model: Any, batch: Batch, *, frozen: Frozen, decode: Callable[..., Any] | None
    ) -> Restored | None:
        """The images, what the model sees of them, and what it predicts, for a picture.

        None if it predicts nothing that can be shown. `batch` holds image and sample_index as in
        `measure`; the masks are those of `measure`. `decode` makes normalised images of visual
        tokens (B, h, w) of the frozen tokenizer; None if there is none, or if it has no decoder.
        """
        return None

    @property
    def restoring(self) -> str:
        """What must be known to read the picture of `restored`; "" if nothing."""
        return ""

    def finished(self, totals: Mapping[str, np.ndarray], *, count: int) -> dict[str, float]:
        """The metrics of a split, from its totals of `measure` in double precision.

        Unless redefined, each sum divided by `count`, the number of images that count.
        """
        return {name: float(total) / count for name, total in totals.items()}
