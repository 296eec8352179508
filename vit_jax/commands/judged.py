"""What a classifier answers for labelled images, for the pictures of its mistakes.

Shapes: N images, K classes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints import imagenet
from vit_jax.data.record import UNKNOWN, Label
from vit_jax.models import zoo
from vit_jax.models.model import Model
from vit_jax.objectives import classification

Function = Callable[[Any, jax.Array], Any]  # (model, normalised images) -> arrays, or None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """The answers for images of known classes."""

    names: tuple[str, ...]  # of the classes
    places: np.ndarray  # int (N,), of the images in their split
    labels: np.ndarray  # int (N,), in the order of the model's classes
    predicted: np.ndarray  # int (N,), the most probable class
    probabilities: np.ndarray  # float (N,), of the predicted class
    losses: np.ndarray  # float (N,), cross-entropy with the label

    @property
    def right(self) -> int:
        """The number of images that are predicted right."""
        return int((self.predicted == self.labels).sum())

    def confusion(self) -> np.ndarray:
        """The number of images of each class (rows) that are predicted as each class: (K, K)."""
        counts = np.zeros((len(self.names),) * 2, np.int64)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def worst(self, number: int) -> np.ndarray:
        """Indices of the wrong answers of the highest loss, the highest first; at most `number`."""
        order = np.argsort(-self.losses, kind="stable")
        return order[(self.predicted != self.labels)[order]][:number]


def judge(
    model: Model,
    labels: Mapping[int, Label],
    *,
    class_names: Sequence[str],
    compute: Callable[[Function, Sequence[int]], Iterable[np.ndarray]],
) -> Judged:
    """The answers for those images whose class the model knows.

    `labels` are those of images by their place in the split, and `class_names` the names of their
    classes. `compute` calls a function of the model and normalised images for the images at some
    places, batch by batch. Raises NoPicture if there is no head, or no such image.
    """
    try:
        zoo.check_head(model.options)
    except ValueError as error:
        raise NoPicture(str(error)) from error
    if any(np.ndim(label) for label in labels.values()):
        raise NoPicture("images may have several classes")
    found = {place: _label(model, class_names, int(label)) for place, label in labels.items()}
    known = {place: label for place, label in found.items() if label != UNKNOWN}
    if not known:
        raise NoPicture("no image has a label that is a class of the model")
    places, true = np.array(list(known)), np.array(list(known.values()))

    def compute_logits(model: Model, images: jax.Array) -> jax.Array:
        return model(images).astype(jnp.float32)

    logits = jnp.concatenate(list(compute(compute_logits, places.tolist())))
    kind = classification.trained_with(model)
    answers = classification.most_probable(logits, kind=kind)
    targets = jax.nn.one_hot(true, logits.shape[1])
    return Judged(
        names=imagenet.class_names(model),
        places=places,
        labels=true,
        predicted=np.asarray(answers.classes[:, 0]),
        probabilities=np.asarray(answers.probabilities[:, 0]),
        losses=np.asarray(classification.cross_entropy(logits, targets, kind=kind), np.float64),
    )


def _label(model: Model, class_names: Sequence[str], label: int) -> int:
    """The number of an image's class among those of the model.

    UNKNOWN if it is not one of them, or if its name is that of several classes.
    """
    if not 0 <= label < len(class_names):
        return UNKNOWN
    own, shown = tuple(model.class_names), imagenet.class_names(model)
    if not own or tuple(class_names) in (own, shown):  # the same classes in the same order
        return label if label < model.options.num_classes else UNKNOWN
    name = class_names[label]
    names = own if name in own else shown
    once = names.count(name) == list(class_names).count(name) == 1
    return names.index(name) if once else UNKNOWN
