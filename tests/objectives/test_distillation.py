"""Distillation equals DeiT's own loss, in value and in the gradients of both heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.objectives import classification
from vit_jax.objectives.distillation import TEACHER, Distillation, imitation_loss

FACTS = DataFacts(train_size=100, num_classes=10)


class Heads:
    """A student that gives the logits of both heads."""

    def __init__(self, logits, imitation) -> None:
        self.heads = (logits, imitation)

    def __call__(self, images, *, key=None, return_heads=False):
        assert return_heads
        return self.heads


@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize(("alpha", "temperature"), [(0.5, 1.0), (0.1, 3.0)])
@pytest.mark.parametrize("base", ["softce", "smooth0.1", "ce"])
def test_loss_and_gradients_of_both_heads_equal_deit(shared, kind, alpha, temperature, base):
    io = np.load(shared / "fixtures/deit_distillation_loss/io.npz")
    name = f"{kind}_a{alpha}_t{temperature}_{base}"
    objective = Distillation(teacher="x", distillation=kind, alpha=alpha, temperature=temperature)
    smoothing = {"smooth0.1": 0.1}.get(base, 0.0)
    targets = classification.one_hot_targets(io["labels"], num_classes=10, smoothing=smoothing)
    if base == "softce":
        targets = jnp.asarray(io["soft_labels"])
    teacher = {TEACHER: lambda images: jnp.asarray(io["teacher_logits"])}
    batch = {"image": jnp.zeros((6, 1, 1, 3)), "targets": targets}

    def mean(logits, imitation):
        values, weights, extras = objective.loss(
            Heads(logits, imitation), batch, key=jax.random.key(0), frozen=teacher
        )
        assert set(extras) == {"base_loss", "distillation_loss", "agreement"}
        same = imitation.argmax(axis=1) == io["teacher_logits"].argmax(axis=1)
        np.testing.assert_array_equal(jax.lax.stop_gradient(extras["agreement"]), same)
        return values.sum() / weights.sum()

    heads = jnp.asarray(io["logits_cls"]), jnp.asarray(io["logits_dist"])
    value, gradients = jax.value_and_grad(mean, argnums=(0, 1))(*heads)
    assert_close(value, io[name], rtol=1e-5)
    assert_close(gradients[0], io[f"{name}_dcls"], rtol=1e-4, atol=1e-7)
    assert_close(gradients[1], io[f"{name}_ddist"], rtol=1e-4, atol=1e-7)


def test_the_labels_part_follows_the_fields_of_classification() -> None:
    """Such as DeiT III's binary cross-entropy with thresholded targets."""
    fields = {"cross_entropy": "sigmoid_mean", "target_threshold": 0.2}
    heads = jax.random.normal(jax.random.key(0), (3, 4, 10))
    batch = {"image": heads[0], "targets": jax.nn.softmax(2 * heads[2])}
    objective = Distillation(teacher="x", alpha=0.25, **fields)
    found = objective.loss(
        Heads(heads[0], heads[1]), batch, key=None, frozen={TEACHER: lambda images: heads[2]}
    )
    base = classification.Classification(**fields).supervised(heads[0], batch["targets"])
    np.testing.assert_array_equal(found.extras["base_loss"], base)
    assert_close(found.values, 0.75 * base + 0.25 * found.extras["distillation_loss"], rtol=1e-6)


def test_bfloat16_logits_are_compared_in_float32() -> None:
    logits = jax.random.normal(jax.random.key(0), (4, 100), jnp.bfloat16) * 10
    for kind in ("soft", "hard"):
        targets = jax.nn.softmax(logits[::-1])
        value = imitation_loss(logits, targets, kind=kind)
        exact = imitation_loss(logits.astype(jnp.float32), targets.astype(jnp.float32), kind=kind)
        assert value.dtype == jnp.float32 and value.shape == (4,)
        np.testing.assert_array_equal(value, exact)


def test_a_student_without_a_second_head_is_refused() -> None:
    objective = Distillation(teacher="x")
    with pytest.raises(ValueError, match=r"no second head.*DeiT-distilled"):
        objective.model(zoo.options("Ti/16"), FACTS)
    with pytest.raises(ValueError, match="no second head"):
        objective.model(zoo.options("R50x1"), FACTS)
    assert objective.model(zoo.options("DeiT-distilled-Ti/16"), FACTS).num_classes == 10


@pytest.mark.parametrize("fields", [{"alpha": 1.5}, {"alpha": -0.1}, {"temperature": 0.0}])
def test_a_weight_or_temperature_out_of_range_is_refused(fields) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is"):
        Distillation(teacher="x", **fields)
