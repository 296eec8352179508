"""Losses equal the originals', in value and gradient; metrics add up whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from vit_jax.objectives import classification


def mean_loss(logits: jax.Array, targets: jax.Array, *, kind: classification.Kind) -> jax.Array:
    return classification.cross_entropy(logits, targets, kind=kind).mean()


@pytest.mark.parametrize(
    ("name", "kind", "scale"),
    [
        ("soft_ce", "softmax", 1.0),
        ("ls_ce_0.1", "softmax", 1.0),
        ("bce_sumclasses_smooth0.1", "sigmoid", 1.0),
        ("bce_smooth0.1", "sigmoid", 0.1),  # timm's mean over the 10 classes; ours is the sum
        ("bce_soft", "sigmoid", 0.1),
    ],
)
def test_loss_equals_timm(shared, name, kind, scale):
    io = np.load(shared / "fixtures/timm_losses/io.npz")
    targets = jnp.asarray(io["soft_labels"])
    if "0.1" in name:
        targets = classification.one_hot_targets(io["labels"], num_classes=10, smoothing=0.1)
    value, gradient = jax.value_and_grad(
        lambda logits: scale * mean_loss(logits, targets, kind=kind)
    )(jnp.asarray(io["logits"]))
    assert_close(value, io[name], rtol=1e-6)
    assert_close(gradient, io[f"{name}_grad"], rtol=1e-5, atol=1e-7)


def test_loss_equals_vit_jax(shared):
    io = np.load(shared / "fixtures/vitjax_cls/io.npz")
    value = mean_loss(
        jnp.asarray(io["expected_logits"]), jnp.asarray(io["labels_soft"]), kind="softmax"
    )
    assert_close(value, io["expected_loss"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_bfloat16_logits_are_computed_in_float32(kind):
    logits = jax.random.normal(jax.random.key(0), (4, 1000), jnp.bfloat16) * 30
    targets = classification.one_hot_targets(jnp.arange(4), num_classes=1000)
    value = classification.cross_entropy(logits, targets, kind=kind)
    exact = classification.cross_entropy(logits.astype(jnp.float32), targets, kind=kind)
    assert value.dtype == jnp.float32
    assert value.shape == (4,)
    np.testing.assert_array_equal(value, exact)


def test_smoothed_targets_sum_to_one():
    targets = classification.one_hot_targets(jnp.array([2, 0]), num_classes=4, smoothing=0.2)
    assert_close(targets, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]], rtol=1e-7)


def sums(logits, labels, mask=None, kind="softmax"):
    logits = jnp.asarray(logits, jnp.float32)
    targets = classification.one_hot_targets(jnp.asarray(labels), num_classes=logits.shape[1])
    mask = jnp.ones(len(logits), bool) if mask is None else jnp.asarray(mask)
    found = classification.metrics(logits, targets, mask=mask, kind=kind)
    return {name: float(value) for name, value in found.items()}


def test_metrics_count_hits():
    logits = np.tile(np.arange(8.0), (4, 1))  # class 7 first, then 6, 5, 4, 3
    found = sums(logits, [7, 3, 2, 6])
    assert (found["top1"], found["top5"], found["count"]) == (1, 3, 4)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_metrics_of_padded_batches_add_up_to_those_of_the_whole(kind):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(10, 7)), rng.integers(7, size=10)
    whole = sums(logits, labels, kind=kind)
    padded = np.concatenate([logits, np.full((2, 7), np.nan)])
    labels, mask = np.append(labels, [-1, -1]), np.arange(12) < 10
    parts = [sums(padded[i : i + 4], labels[i : i + 4], mask[i : i + 4], kind) for i in (0, 4, 8)]
    for name, value in whole.items():
        assert_close(sum(part[name] for part in parts), value, rtol=1e-6)
    assert whole["count"] == 10


def test_ties_go_to_the_lower_class():
    found = sums(np.zeros((3, 8)), [0, 4, 5])
    assert (found["top1"], found["top5"]) == (1, 2)


def test_top5_of_fewer_classes_is_always_a_hit():
    found = sums([[1.0, 2, 3], [3, 2, 1]], [0, 0])
    assert (found["top1"], found["top5"], found["count"]) == (1, 2, 2)


def test_any_of_several_targets_is_a_hit():
    logits = jnp.asarray([[0.0, 3, 1, 2]])
    targets = jnp.asarray([[1.0, 1, 0, 0]])
    found = classification.metrics(logits, targets, mask=jnp.array([True]), kind="sigmoid")
    assert found["top1"] == found["top5"] == 1
