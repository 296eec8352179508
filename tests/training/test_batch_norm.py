"""A step with batch norm is PyTorch's: statistics of the global batch, and running averages."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.checkpoints import torch_resnets
from tests.compare import assert_close, assert_same_bits
from vit_jax.checkpoints import load
from vit_jax.config import default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.models.batch_norm import MOMENTUM, BatchNorm
from vit_jax.parallel.mesh import MeshConfig, make_mesh, to_global
from vit_jax.training import setup, state
from vit_jax.training.design import design

PYTORCH = json.loads(
    (pathlib.Path(__file__).parents[1] / "checkpoints/torch_resnets.json").read_text()
)


@pytest.fixture(scope="module")
def step(tmp_path_factory) -> Any:
    """`step(name, devices)` takes one step of SGD: the metrics, the state before, the state after.

    Of a ResNet of `torch_resnets`, on its images; other arguments are fields of the optimizer.
    """
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def run(
        name: str, devices: int, tune: str = "full", **fields: Any
    ) -> tuple[dict[str, float], Any, Any]:
        path = folder / f"{name}.safetensors"
        safetensors_numpy.save_file(torch_resnets.arrays(name), path)
        found = load.read(path)
        options = dataclasses.replace(found.options, image_size=(32, 32))
        config = default_config()
        config.model.name = "ResNet-18"
        config.augment = ("value_range",)
        config.data.mean = config.data.std = (0.5, 0.5, 0.5)
        config.optimizer.name = "sgd"
        config.optimizer.update({"learning_rate": 0.1, "clip_norm": 0.0} | fields)
        config.batch_size, config.ema, config.tune.kind = 4, 0.5, tune
        seen = dataclasses.replace(found.preprocessing, image_size=(32, 32))
        start = setup.Start(options=options, preprocessing=seen, params=found.params)
        mesh = make_mesh(MeshConfig(data=devices), devices=jax.devices()[:devices])
        facts = DataFacts(train_size=100, num_classes=torch_resnets.CLASSES)
        plan = design(resolve(config), facts, mesh, start=start)
        first = state.create(
            options, plan.optimizer, abstract=plan.abstract, seed=0, params=found.params
        )
        before = jax.device_get(first)
        batch = {
            "image": torch_resnets.pixels(),
            "label": np.arange(4, dtype=np.int32),
            "sample_index": np.arange(8, dtype=np.uint32).reshape(4, 2),
        }
        with jax.set_mesh(mesh):
            placed = to_global(batch, mesh, batch_size=4)
            after, metrics = plan.step(first, placed, {})
        return jax.device_get(metrics), before, jax.device_get(after)

    return run


@pytest.mark.parametrize(
    ("name", "devices"), [("basic", 1), ("basic", 4), ("bottleneck", 1), ("cifar", 4)]
)
def test_the_step_and_the_running_averages_are_those_of_pytorch(step, name, devices) -> None:
    metrics, before, after = step(name, devices)
    theirs = PYTORCH[name]
    assert metrics["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    for leaf, sums in (("mean", theirs["means"]), ("variance", theirs["variances"])):
        found = _of(after["params"], leaf)
        assert_close(sorted(array.sum() for array in found), sorted(sums), rtol=1e-4, atol=1e-5)
        assert all((a != b).all() for a, b in zip(found, _of(before["params"], leaf), strict=True))


def test_the_polyak_average_starts_from_the_new_running_averages(step) -> None:
    _, _, after = step("basic", 1)
    assert_close(after["ema"], after["params"], atol=1e-7)


def test_the_optimizer_has_no_state_for_running_averages(step) -> None:
    _, _, after = step("basic", 1)
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(after["opt_state"])
    ]
    assert any(path.endswith("norm/scale") for path in paths)
    assert not [path for path in paths if path.endswith(("norm/mean", "norm/variance"))]


def test_the_norm_of_the_parameters_does_not_count_running_averages(step) -> None:
    metrics, _, after = step("basic", 1)
    kept = [a for p, a in _flat(after["params"]).items() if not p.endswith(("mean", "variance"))]
    expected = np.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in kept))
    assert metrics["param_norm"] == pytest.approx(expected, rel=1e-5)


def test_micro_batches_update_the_running_averages_one_after_another(step) -> None:
    _, before, after = step("basic", 1, accumulate=2)
    kernel, x = before["params"]["stem"]["kernel"], torch_resnets.images()
    mean = before["params"]["stem"]["norm"]["mean"]
    for part in (x[0::2], x[1::2]):
        features = jax.lax.conv_general_dilated(
            part, kernel, (2, 2), [(3, 3), (3, 3)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        mean = mean + 0.1 * (np.asarray(features).mean((0, 1, 2)) - mean)
    assert_close(after["params"]["stem"]["norm"]["mean"], mean)


def test_frozen_parameters_stay_and_have_no_share_in_the_gradient_norm(step) -> None:
    metrics, before, after = step("basic", 1, frozen=("^stem/", "^stage"))
    for part in ("stem", "stage1", "stage2"):
        kept = [
            {p: v for p, v in _flat(tree["params"][part]).items() if "/norm/" not in f"/{p}"}
            for tree in (before, after)
        ]
        assert_same_bits(kept[1], kept[0])
    moved = after["params"]["head"]["kernel"] - before["params"]["head"]["kernel"]
    both = np.sqrt(
        (moved**2).sum()
        + ((after["params"]["head"]["bias"] - before["params"]["head"]["bias"]) ** 2).sum()
    )
    assert metrics["grad_norm"] == pytest.approx(both / 0.1, rel=1e-4)
    assert metrics["grad_norm"] < 0.9 * PYTORCH["basic"]["grad_norm"]


def test_a_backbone_that_does_not_train_keeps_its_running_averages(step) -> None:
    """With tune.kind=head. Its features in training are then those of evaluations."""
    metrics, before, after = step("basic", 1, tune="head")
    old, new = _flat(before["params"]), _flat(after["params"])
    moved = [path for path in old if not np.array_equal(old[path], new[path])]
    assert sorted(moved) == ["head/bias", "head/kernel"]
    assert metrics["loss"] != pytest.approx(PYTORCH["basic"]["loss"], rel=1e-5)


def _of(params: Any, leaf: str) -> list[np.ndarray]:
    return [array for path, array in _flat(params).items() if path.endswith(f"norm/{leaf}")]


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_the_variance_keeps_its_digits_where_the_mean_is_large() -> None:
    """One pass finds mean and variance; the running mean, which is near, keeps it exact."""
    mean, spread = 1000.0, 0.5
    x = np.random.default_rng(0).normal(mean, spread, (64, 8, 8, 3)).astype(np.float32)
    norm = BatchNorm(3)
    norm.mean[...] = jnp.full(3, mean + 0.1)
    found = norm(jnp.asarray(x), training=True)
    wide = x.astype(np.float64)
    centre, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    assert_close(norm.mean[...], mean + 0.1 + MOMENTUM * (centre - mean - 0.1), rtol=1e-6)
    assert_close(found, (wide - centre) / np.sqrt(variance + norm.eps), atol=2e-3)
