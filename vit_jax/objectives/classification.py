"""Classification: cross-entropy with soft targets, and metrics that add up exactly.

Shapes: B examples, K classes. Logits may be of any float type; everything here is float32.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.models.model import CrossEntropy
from vit_jax.objectives import calibration
from vit_jax.objectives.contract import (
    ANSWERS,
    Answers,
    Batch,
    Direction,
    Frozen,
    Loss,
    Objective,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """Cross-entropy of the classes of labelled images."""

    # Softmax over all classes, or the sigmoid of each class alone, summed or averaged over classes.
    cross_entropy: CrossEntropy = "softmax"
    # Share of the target that is spread over all classes; of several labels, over yes and no.
    label_smoothing: float = 0.0
    # Sigmoid: targets above it become 1 and the others 0, after mixing; negative: they stay.
    target_threshold: float = -1.0

    metrics: ClassVar[Mapping[str, Direction]] = {"top1": "max", "top5": "max", "loss": "min"}
    inputs: ClassVar[tuple[str, ...]] = ("image", "label", "sample_index")
    gives: ClassVar[frozenset[str]] = frozenset({"targets"})
    classifies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"config.objective.label_smoothing is {self.label_smoothing}: it must be in [0, 1)"
            )
        if self.target_threshold >= 0 and self.cross_entropy == "softmax":
            raise ValueError(
                "config.objective.target_threshold needs cross_entropy sigmoid or sigmoid_mean:"
                " the targets of softmax must sum to 1"
            )
        if self.target_threshold >= 1:
            raise ValueError(
                f"config.objective.target_threshold is {self.target_threshold}: no target is above"
                " it, use a number below 1"
            )

    def check_kind(self, base: zoo.Options) -> None:
        if zoo.classifier(base) != base:
            raise ValueError(
                "config.objective is classification, but config.model.name is a model of masked"
                " pretraining: name the model for fine-tuning, such as MAE-B/16 for"
                " MAE-pretrain-B/16, or choose another objective"
            )

    def model(self, base: zoo.Options, facts: DataFacts) -> zoo.Options:
        if not facts.num_classes:
            raise ValueError(
                "config.objective is classification, but the images have no classes: choose another"
                " objective, or images in folders named by class"
            )
        self.check_kind(base)
        if facts.multi_label and self.cross_entropy == "softmax":
            raise ValueError(
                "config.objective.cross_entropy is softmax, but images have several classes: set it"
                " to sigmoid"
            )
        least = self.label_smoothing / (2 if facts.multi_label else facts.num_classes)
        if 0 <= self.target_threshold < least:
            raise ValueError(
                f"config.objective.label_smoothing {self.label_smoothing} makes the target of every"
                f" class {least:g}, which is above"
                f" config.objective.target_threshold {self.target_threshold}: all of them would"
                " become 1, set label_smoothing to 0 or the threshold higher"
            )
        return zoo.change(base, num_classes=facts.num_classes)

    def adopted(self, options: zoo.Options) -> zoo.Options:
        return zoo.classifier(options)

    def prepare(self, batch: Batch, *, options: zoo.Options, key: jax.Array) -> Batch:
        targets = one_hot_targets(
            batch["label"], num_classes=options.num_classes, smoothing=self.label_smoothing
        )
        return batch | {"targets": targets}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        logits = model(batch["image"], key=key)
        values = self.supervised(logits, batch["targets"])
        return Loss(values, jnp.ones_like(values))

    def supervised(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss float32 (B,) of logits (B, K) and the mixed targets (B, K) of a batch."""
        if self.target_threshold >= 0:
            targets = (targets > self.target_threshold).astype(jnp.float32)
        return cross_entropy(logits, targets, kind=self.cross_entropy)

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, Any]:
        """The sums of `metrics`; for images of one label those of `calibration`, and Answers."""
        logits, label, mask = model(batch["image"]), batch["label"], batch["mask"]
        targets = one_hot_targets(label, num_classes=model.options.num_classes)
        several = label.ndim == 2
        if several and self.cross_entropy == "softmax":  # equally probable
            targets = targets / jnp.maximum(targets.sum(axis=-1, keepdims=True), 1)
        sums = metrics(logits, targets, mask=mask, kind=self.cross_entropy)
        if several:
            return sums
        answers = most_probable(logits, kind=self.cross_entropy)
        hits = (answers.classes[:, 0] == label).astype(jnp.float32)
        ece = calibration.gaps(answers.probabilities[:, 0], hits, mask=mask)
        return sums | {"ece": ece, ANSWERS: answers}

    def finished(self, totals: Mapping[str, np.ndarray], *, count: int) -> dict[str, float]:
        """Means, and the expected calibration error `ece` of images of one label."""
        means = {name: total for name, total in totals.items() if name != "ece"}
        found = super().finished(means, count=count)
        if "ece" in totals:
            found["ece"] = calibration.expected_error(totals["ece"], count=count)
        return found


def cross_entropy(logits: jax.Array, targets: jax.Array, *, kind: CrossEntropy) -> jax.Array:
    """Cross-entropy, float32 (B,) in nats, of logits (B, K) and target probabilities (B, K).

    "sigmoid" sums the binary cross-entropies of all classes, as big_vision does, so that its
    gradients have the scale of softmax. "sigmoid_mean" averages them, as DeiT III and timm do.
    """
    assert logits.shape == targets.shape, (logits.shape, targets.shape)
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    if kind == "softmax":
        return optax.softmax_cross_entropy(logits, targets)
    binary = optax.sigmoid_binary_cross_entropy(logits, targets)
    return binary.sum(axis=-1) if kind == "sigmoid" else binary.mean(axis=-1)


def trained_with(model: zoo.Model) -> CrossEntropy:
    """What a loaded model was trained with; the softmax if that is not known."""
    return model.cross_entropy or "softmax"


def most_probable(logits: jax.Array, *, kind: CrossEntropy) -> Answers:
    """The classes of the 5 largest logits (B, K), or of all if K is smaller, with probabilities.

    Of equal logits the lower class goes first.
    """
    logits = logits.astype(jnp.float32)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    return Answers(best, jnp.take_along_axis(probabilities(logits, kind=kind), best, axis=-1))


def probabilities(logits: jax.Array, *, kind: CrossEntropy) -> jax.Array:
    """The probability of each class, float32 (B, K), of logits (B, K).

    The softmax over all classes, or the sigmoid of each class alone where `kind` is a sigmoid.
    """
    logits = logits.astype(jnp.float32)
    return jax.nn.softmax(logits) if kind == "softmax" else jax.nn.sigmoid(logits)


def one_hot_targets(labels: jax.Array, *, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """Labels, int (B,), as float32 (B, K): smoothing / K everywhere, the rest on the label.

    As in Szegedy et al. 2016, section 7, PyTorch and timm, for softmax and sigmoid alike. Several
    labels are given as (B, K), 1 for each class of an image. Each class is a question of its own,
    with two answers, and its target moves towards 1/2, as in timm.
    """
    if labels.ndim == 2:
        return (1 - smoothing) * labels.astype(jnp.float32) + smoothing / 2
    on_label = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return (1 - smoothing) * on_label + smoothing / num_classes


def metrics(
    logits: jax.Array, targets: jax.Array, *, mask: jax.Array, kind: CrossEntropy
) -> dict[str, jax.Array]:
    """Sums of top1, top5, loss and count, float32 (), over the examples with a True `mask`, (B,).

    Sums are exact however a dataset is split into batches and batches over devices; divide by
    `count` at the end. An example is a hit if one of the k classes with the largest logits is a
    target; of equal logits the lower class goes first. With several labels, top1 is the precision
    at 1. With fewer than 5 classes every example that has a label is a top-5 hit.
    """
    logits = logits.astype(jnp.float32)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))  # (B, 5)
    hits = (jnp.take_along_axis(targets, best, axis=-1) > 0).astype(jnp.float32)
    hits = jnp.where(jnp.isnan(logits).any(axis=-1, keepdims=True), jnp.nan, hits)  # no answer
    per_example = {
        "top1": hits[:, 0],
        "top5": hits.max(axis=-1),
        "loss": cross_entropy(logits, targets, kind=kind),
        "count": jnp.ones(len(logits)),
    }
    # Not multiplied by the mask: padding may hold anything, such as NaN.
    return {name: jnp.where(mask, value, 0).sum() for name, value in per_example.items()}
