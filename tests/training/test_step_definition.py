"""What a step minimises, how it moves the parameters, and what it reports, from the definitions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.training.one_step import Training, host_batch, make_config, mesh_of

CLASSES, SMOOTHING, CLIP = 16, 0.2, 0.25
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = {"data.flip": False, "data.mixup": 0.0}
SGD = {"momentum": 0.0, "weight_decay": 0.0, "clip_norm": CLIP}


def loss_of(training: Training, params: Any, kind: str) -> jax.Array:
    """The mean loss of the batch, as a textbook writes it."""
    batch = host_batch()
    images = (batch["image"] / np.float32(255) - np.float32(MEAN)[None, None, None]) / np.float32(
        STD
    )[None, None, None]
    logits = nnx.merge(training.graphdef, params)(jnp.asarray(images))
    targets = np.full((len(images), CLASSES), np.float32(SMOOTHING / CLASSES))
    targets[np.arange(len(images)), batch["label"]] += np.float32(1 - SMOOTHING)
    if kind == "softmax":
        return -(targets * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
    hits, misses = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(targets * hits + (1 - targets) * misses).sum(axis=-1).mean()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_step_follows_the_gradient_of_the_smoothed_loss_clipped_by_its_norm(kind) -> None:
    """Its `grad_norm` is that before clipping, its `learning_rate` that of the step it takes."""
    fields = {
        **PLAIN,
        **{"data.mean": MEAN, "data.std": STD},
        **{"objective.loss": kind, "objective.label_smoothing": SMOOTHING},
    }
    config = make_config("sgd", fields=fields, **SGD)
    training = Training(config, mesh_of("one"), schedule=lambda step: 0.5 * (step + 1))
    for rate in (0.5, 1.0):
        before = jax.device_get(training.state["params"])
        value, gradient = jax.jit(
            jax.value_and_grad(lambda params: loss_of(training, params, kind))
        )(before)
        norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
        metrics = training.run()
        assert metrics["loss"] == pytest.approx(float(value), rel=1e-5)
        assert metrics["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        assert metrics["grad_norm"] > 2 * CLIP
        assert metrics["learning_rate"] == pytest.approx(rate)
        jax.tree.map(
            lambda old, new, g, factor=rate * CLIP / norm: np.testing.assert_allclose(
                new, old - factor * g, rtol=0, atol=1e-6
            ),
            before,
            jax.device_get(training.state["params"]),
            gradient,
        )


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
