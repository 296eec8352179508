"""Classification: cross-entropy with soft targets, and metrics that add up exactly.

Shapes: B examples, K classes. Logits may be of any float type; everything here is float32.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import optax

Kind = Literal["softmax", "sigmoid"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Cross-entropy of the classes of labelled images."""

    loss: Kind = "softmax"  # cross-entropy over all classes, or of each class by itself
    label_smoothing: float = 0.0  # share of the target that is spread over all classes

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"config.objective.label_smoothing is {self.label_smoothing}: it must be in [0, 1)"
            )


def loss(logits: jax.Array, targets: jax.Array, *, kind: Kind) -> jax.Array:
    """The mean of `cross_entropy` over the batch, float32 ()."""
    return cross_entropy(logits, targets, kind=kind).mean()


def cross_entropy(logits: jax.Array, targets: jax.Array, *, kind: Kind) -> jax.Array:
    """Of logits (B, K) against target probabilities (B, K): float32 (B,), in nats.

    "sigmoid" is one binary problem a class and sums over the classes, as big_vision does, so that
    its gradients have the scale of softmax; timm's BinaryCrossEntropy averages: 1/K of this.
    """
    assert logits.shape == targets.shape, (logits.shape, targets.shape)
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    if kind == "softmax":
        return optax.softmax_cross_entropy(logits, targets)
    return optax.sigmoid_binary_cross_entropy(logits, targets).sum(axis=-1)


def one_hot_targets(labels: jax.Array, *, num_classes: int, smoothing: float = 0.0) -> jax.Array:
    """Labels, int (B,), as float32 (B, K): smoothing / K everywhere, the rest on the label.

    Szegedy et al. 2016, section 7; so do PyTorch and timm, for softmax and sigmoid alike.
    """
    on_label = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return (1 - smoothing) * on_label + smoothing / num_classes


def metrics(
    logits: jax.Array, targets: jax.Array, *, mask: jax.Array, kind: Kind
) -> dict[str, jax.Array]:
    """Sums over the examples where `mask`, bool (B,), holds: top1, top5, loss, count, float32 ().

    Sums, because they are exact however a data set is cut into batches and batches over devices;
    divide by `count` at the very end. An example counts as a hit when one of the k classes with
    the largest logits is a target (the only one, or one of several); of equal logits the lower
    class goes first. With fewer than 5 classes every example is a top-5 hit.
    """
    logits = logits.astype(jnp.float32)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))  # (B, 5)
    hits = jnp.take_along_axis(targets.astype(jnp.float32), best, axis=-1)
    per_example = {
        "top1": hits[:, 0],
        "top5": hits.max(axis=-1),
        "loss": cross_entropy(logits, targets, kind=kind),
        "count": jnp.ones(len(logits)),
    }
    # Selected, not multiplied: padding may hold anything, NaN too.
    return {name: jnp.where(mask, value, 0).sum() for name, value in per_example.items()}
