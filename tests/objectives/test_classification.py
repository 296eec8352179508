"""Losses equal the originals', in value and gradient; metrics add up whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.data.record import DataFacts
from vit_jax.models.model import CrossEntropy
from vit_jax.objectives import classification
from vit_jax.objectives.classification import Classification


def mean_loss(logits: jax.Array, targets: jax.Array, *, kind: CrossEntropy) -> jax.Array:
    return classification.cross_entropy(logits, targets, kind=kind).mean()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("soft_ce", "softmax"),
        ("ls_ce_0.1", "softmax"),
        ("bce_sumclasses_smooth0.1", "sigmoid"),
        ("bce_smooth0.1", "sigmoid_mean"),
        ("bce_soft", "sigmoid_mean"),
        ("bce_thresh0.2_soft", "sigmoid_mean"),
    ],
)
def test_loss_equals_timm(shared, name, kind):
    io = np.load(shared / "fixtures/timm_losses/io.npz")
    targets = jnp.asarray(io["soft_labels"])
    if "0.1" in name:
        targets = classification.one_hot_targets(io["labels"], num_classes=10, smoothing=0.1)
    threshold = 0.2 if "thresh" in name else -1.0
    objective = Classification(cross_entropy=kind, target_threshold=threshold)
    value, gradient = jax.value_and_grad(
        lambda logits: objective.supervised(logits, targets).mean()
    )(jnp.asarray(io["logits"]))
    assert_close(value, io[name], rtol=1e-6)
    assert_close(gradient, io[f"{name}_grad"], rtol=1e-5, atol=1e-7)


def test_loss_equals_vit_jax(shared):
    io = np.load(shared / "fixtures/vitjax_cls/io.npz")
    value = mean_loss(
        jnp.asarray(io["expected_logits"]), jnp.asarray(io["labels_soft"]), kind="softmax"
    )
    assert_close(value, io["expected_loss"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "sigmoid_mean"])
def test_bfloat16_logits_are_computed_in_float32(kind):
    logits = jax.random.normal(jax.random.key(0), (4, 1000), jnp.bfloat16) * 30
    targets = classification.one_hot_targets(jnp.arange(4), num_classes=1000)
    value = classification.cross_entropy(logits, targets, kind=kind)
    exact = classification.cross_entropy(logits.astype(jnp.float32), targets, kind=kind)
    assert value.dtype == jnp.float32
    assert value.shape == (4,)
    np.testing.assert_array_equal(value, exact)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target_threshold": 0.0}, r"needs cross_entropy sigmoid"),
        ({"cross_entropy": "sigmoid", "target_threshold": 1.0}, r"no target is above it"),
        (
            {"cross_entropy": "sigmoid", "target_threshold": 0.0, "label_smoothing": 0.1},
            r"makes the target of every class 0.01, .* all of them would become 1",
        ),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Classification(**fields).model(tiny.options(), DataFacts(train_size=1, num_classes=10))


def test_a_target_at_the_threshold_is_not_above_it():
    """As timm's `target.gt(threshold)`: mixup's share is often exactly 0.5."""
    objective = Classification(cross_entropy="sigmoid", target_threshold=0.5)
    logits, targets = jnp.asarray([[3.0, -1, 0]]), jnp.asarray([[0.5, 0.51, 0]])
    expected = classification.cross_entropy(logits, jnp.asarray([[0.0, 1, 0]]), kind="sigmoid")
    assert_close(objective.supervised(logits, targets), expected)


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
