"""One step: the same on any mesh and in any number of parts, in place, and reproducible."""

import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from tests.models import tiny
from vit_jax.config import Config, MeshConfig, default_config, resolve
from vit_jax.parallel.mesh import AXES, make_mesh, to_global
from vit_jax.training import optimizer, state, step

BATCH = 32
MODEL = {"num_classes": 16, "depth": 2}
MESHES = {
    "data": MeshConfig(data=8),
    "fsdp": MeshConfig(data=1, fsdp=8),
    "all": MeshConfig(data=2, fsdp=2, tensor=2),
}


def make_config(name: str, **optimizer: Any) -> Config:
    config = default_config()
    config.model.name = "Ti/16"
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.mixup = 0.2
    config.ema = 0.9
    config.optimizer.name = name
    config.optimizer.learning_rate = {"sgd": 0.1, "adamw": 1e-3}[name]
    config.optimizer.weight_decay = 0.1
    # The first step of Adam is g / (|g| + eps): where the gradient is rounding noise, as that of
    # the bias of the keys, which the softmax does not see, an eps of 1e-8 makes whole steps of it.
    config.optimizer.eps = 1e-6
    config.optimizer.update(optimizer)
    return resolve(config)


def mesh_of(name: str) -> Mesh:
    if name != "one":
        return make_mesh(MESHES[name])
    auto = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh((1, 1, 1), AXES, axis_types=auto, devices=jax.devices()[:1])


class Training:
    """A state and its compiled step; `run` takes a step on a fixed batch."""

    def __init__(self, config: Config, mesh: Mesh, **model: Any) -> None:
        options = tiny.options(**MODEL, **model)
        graphdef, shapes = state.abstract_params(options)
        schedule = optax.constant_schedule(config.optimizer.learning_rate)
        rule = optimizer.make_optimizer(config.optimizer, schedule, shapes)
        self.abstract = state.abstract_state(options, rule, average=True, mesh=mesh)
        self.state = state.create(
            options, rule, abstract=self.abstract, seed=config.seed, params=tiny.params(options)
        )
        prepare, loss = step.classification_step_parts(config, num_classes=16)
        train_step = step.make_train_step(
            graphdef,
            prepare=prepare,
            loss=loss,
            optimizer=rule,
            schedule=schedule,
            abstract=self.abstract,
            accumulate=config.optimizer.accumulate,
            ema=config.ema,
        )
        self.batch = to_global(host_batch(), mesh, batch_size=BATCH)
        with jax.set_mesh(mesh):
            self.step = train_step.lower(self.state, self.batch).compile()

    def run(self) -> dict[str, float]:
        self.state, metrics = self.step(self.state, self.batch)
        return {name: float(value) for name, value in metrics.items()}


def host_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (BATCH, 16, 24, 3), np.uint8),
        "label": rng.integers(0, 16, BATCH, np.int32),
        "position": np.stack([np.zeros(BATCH), np.arange(BATCH)], 1).astype(np.uint32),
    }


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
    assert metrics["grad_norm"] > 0
    assert 1 < metrics["loss"] < 10
    # The first update copies, so that the average holds nothing of the initialisation.
    close = functools.partial(np.testing.assert_allclose, atol=1e-7, rtol=0)
    jax.tree.map(close, found["params"], found["ema"])


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
        _, metrics = training.step(start | {"step": jax.numpy.int32(number)}, training.batch)
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
        if path.startswith("blocks/") and path.endswith("kernel"):
            shard = kernel.addressable_shards[0].data.shape
            assert f"f32[{','.join(map(str, shard))}]" in program, path
            assert f"f32[{','.join(map(str, kernel.shape))}]" not in program, path


def test_micro_batches_give_the_gradients_of_the_whole(in_parts) -> None:
    metrics, found, _ = stepped("sgd", "fsdp")
    assert in_parts.run() == pytest.approx(metrics, rel=1e-6)
    close = functools.partial(np.testing.assert_allclose, atol=1e-6, rtol=0)
    jax.tree.map(close, jax.device_get(in_parts.state["params"]), found["params"])
