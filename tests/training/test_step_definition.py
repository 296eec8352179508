"""What a step minimises, how it moves the parameters, and what it reports, from the definitions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.training.one_step import Training, host_batch, make_config, mesh_of
from vit_jax.config import Config
from vit_jax.data import augment

CLASSES, SMOOTHING, CLIP = 16, 0.2, 0.25
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = {"augment": ("value_range",)}
MIXED = {"augment": ("flip", "value_range", {"name": "mixup", "alpha": 0.5})}
SGD = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": CLIP}


def by_hand(config: Config, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """The images and targets of the batch, as a textbook writes them, then flipped and mixed."""
    batch = host_batch()
    targets = np.full((len(batch["label"]), CLASSES), np.float32(SMOOTHING / CLASSES))
    targets[np.arange(len(targets)), batch["label"]] += np.float32(1 - SMOOTHING)
    if len(config.augment) > 1:  # the same in every step: the key is that of the run
        kinds = (
            augment.Flip(),
            augment.ValueRange().bound(mean=MEAN, std=STD),
            augment.Mixup(alpha=0.5),
        )
        apply = jax.jit(lambda batch: augment.augment(batch, kinds, key=key))
        changed = apply({**batch, "targets": jnp.asarray(targets)})
        return changed["image"], changed["targets"]
    mean, std = (np.float32(values)[None, None, None] for values in (MEAN, STD))
    return (batch["image"] / np.float32(255) - mean) / std, targets


def loss_of(training: Training, params: Any, images: Any, targets: Any, *, kind: str) -> jax.Array:
    """The mean loss of the batch."""
    logits = nnx.merge(training.graphdef, params)(jnp.asarray(images))
    if kind == "softmax":
        return -(targets * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
    hits, misses = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(targets * hits + (1 - targets) * misses).sum(axis=-1).mean()


@pytest.mark.parametrize(
    ("kind", "augmentation", "ema_begins"),
    [("softmax", PLAIN, True), ("sigmoid", MIXED, False)],
)
def test_a_step_follows_the_gradient_of_the_smoothed_loss_clipped_by_its_norm(
    kind, augmentation, ema_begins
) -> None:
    """Its `grad_norm` is that before clipping, its `learning_rate` that of the step it takes."""
    fields = {
        **augmentation,
        **{"data.mean": MEAN, "data.std": STD},
        **{"objective.cross_entropy": kind, "objective.label_smoothing": SMOOTHING},
    }
    fields |= {"schedule.decay": "linear", "total.epochs": 0.0, "total.steps": 2}
    if not ema_begins:
        fields |= {"init_state": "all", "init_from": "another run"}
    config = make_config("sgd", fields=fields, **SGD, learning_rate=1.0)
    training = Training(config, mesh_of("one"))
    images, targets = by_hand(config, jax.random.wrap_key_data(training.state["key"] + 0))
    definition = jax.jit(
        jax.value_and_grad(
            lambda params: loss_of(training, params, images, targets, kind=kind),
        )
    )
    for number, rate in enumerate((1.0, 0.5)):
        before = jax.device_get(training.state)
        value, gradient = definition(before["params"])
        norm = float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient))))
        metrics = training.run()
        assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
        assert metrics["grad_norm"] > 2 * CLIP
        assert metrics["learning_rate"] == pytest.approx(rate)
        after = jax.device_get(training.state)
        moved = jax.tree.map(
            lambda old, g, factor=rate * CLIP / norm: old - factor * g, before["params"], gradient
        )
        assert_close(after["params"], moved, atol=1e-6)
        # The average of a new run begins with the first update, that of a branch goes on.
        weight = 1.0 if ema_begins and number == 0 else 0.1
        average = jax.tree.map(
            lambda old, new, w=weight: old + w * (new - old), before["ema"], after["params"]
        )
        assert_close(after["ema"], average, atol=1e-6)


def test_micro_batches_of_a_step_draw_different_dropout() -> None:
    """Two micro-batches of one image each, the same one.

    The head's bias moves against the mean of p - y, p being a micro-batch's probabilities. Were
    these equal, the loss would be -log of their mean at the label; else it is larger (Jensen).
    """
    batch = {name: np.stack([rows[0]] * 2) for name, rows in host_batch().items()}
    config = make_config("sgd", fields=PLAIN, **(SGD | {"clip_norm": 0.0}), accumulate=2)
    training = Training(config, mesh_of("one"), batch=batch, dropout=0.5)
    before = np.asarray(training.state["params"]["head"]["bias"])
    loss = training.run()["loss"]
    moved = before - np.asarray(training.state["params"]["head"]["bias"])
    label = batch["label"][0]
    probability = moved[label] / config.optimizer.learning_rate + 1
    assert 0 < probability < 1
    assert loss > -np.log(probability) + 1e-3
