"""One step: the same on any mesh and in any number of parts, in place, and reproducible."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from tests.training.one_step import MESHES, MODEL, Training, make_config, mesh_of
from vit_jax.training import step


@functools.cache
def stepped(name: str, mesh: str) -> tuple[dict[str, float], Any, Training]:
    """Metrics, the state on the host and the training after one step.

    With flips, mixup, decay and clipping, and dropout in AdamW's.
    """
    dropout = {"adamw": 0.1, "sgd": 0.0}[name]
    training = Training(make_config(name), mesh_of(mesh), dropout=dropout)
    before = jax.tree.leaves(training.state)
    metrics = training.run()
    assert all(leaf.is_deleted() for leaf in before), "the state is donated, all of it"
    return metrics, jax.device_get(training.state), training


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_step_on_any_mesh_is_that_of_one_device(name, mesh) -> None:
    expected_metrics, expected, _ = stepped(name, "one")
    metrics, found, training = stepped(name, mesh)
    assert metrics == pytest.approx(expected_metrics, rel=1e-5)
    theirs = dict(_flat(expected["params"]))
    for path, ours in _flat(found["params"]):
        assert np.abs(ours - theirs[path]).max() <= 1e-5, path
    jax.tree.map(
        lambda leaf, s: leaf.sharding == s.sharding or pytest.fail(f"{leaf.sharding}"),
        training.state,
        training.abstract,
    )


def test_a_step_moves_every_parameter_and_says_how_it_went() -> None:
    metrics, found, _ = stepped("adamw", "one")
    before = tiny.params(tiny.options(**MODEL))
    after = dict(_flat(found["params"]))
    assert after.keys() == before.keys()
    for path, array in before.items():
        assert (after[path] != array).mean() > 0.9, path
    assert found["step"] == 1
    norm = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in after.values()))
    assert metrics["param_norm"] == pytest.approx(norm, rel=1e-5)
    assert metrics["learning_rate"] == pytest.approx(1e-3)
    # The first update copies, so that the average holds nothing of the initialisation.
    assert_close(found["params"], found["ema"], atol=1e-7)


def _flat(tree: Any) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(p, simple=True, separator="/"), leaf) for p, leaf in leaves]


def test_every_step_draws_its_own_dropout() -> None:
    """From the number of the step and the run's key alone."""
    _, found, training = stepped("adamw", "one")

    def loss_of(number: int) -> float:
        start = jax.tree.map(
            lambda leaf, s: jax.device_put(leaf, s.sharding), found, training.abstract
        )
        _, metrics = training.step(start | {"step": jax.numpy.int32(number)}, training.batch, {})
        return float(metrics["loss"])

    assert loss_of(1) == loss_of(1)
    assert abs(loss_of(1) - loss_of(2)) > 1e-4


@pytest.fixture(scope="module")
def in_parts() -> Training:
    return Training(make_config("sgd", accumulate=4), mesh_of("fsdp"))


def test_gradients_of_micro_batches_stay_sharded(in_parts) -> None:
    """Nowhere in the compiled step is a stacked kernel whole, summed gradients included."""
    program = in_parts.step.as_text()
    for path, kernel in _flat(in_parts.state["params"]):
        if path.startswith("encoder/blocks/") and path.endswith("kernel"):
            shard = kernel.addressable_shards[0].data.shape
            assert f"f32[{','.join(map(str, shard))}]" in program, path
            assert f"f32[{','.join(map(str, kernel.shape))}]" not in program, path


def test_micro_batches_give_the_gradients_of_the_whole(in_parts) -> None:
    metrics, found, _ = stepped("sgd", "fsdp")
    assert in_parts.run() == pytest.approx(metrics, rel=1e-6)
    assert_close(in_parts.state["params"], found["params"], atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_what_is_reported_is_divided_by_the_weights_of_the_loss(parts) -> None:
    """Not by the images: the weights of masked pretraining count hidden patches."""

    def gradients(params, batch, key, models, *, whole):
        weight = batch["hidden"].sum()
        sums = {"loss": batch["error"].sum(), "hits": 2 * weight}
        return (weight, sums, {}), params * (1 / weight if whole else 1)

    batch = {"error": jnp.asarray([3.0, 9.0]), "hidden": jnp.asarray([2.0, 4.0])}
    means, _, grads = step._mean_over(
        gradients, jnp.float32(1), batch, jax.random.key(0), {}, averages={}, parts=parts
    )
    assert (float(means["loss"]), float(means["hits"])) == (2.0, 2.0)
    assert float(grads) == pytest.approx(parts / 6)
