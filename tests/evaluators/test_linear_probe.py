"""Linear probes: each of a grid is what it would be alone, by the definition, on any mesh."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tests import cli, runs
from tests.evaluators.test_few_shot import drawn
from tests.evaluators.test_knn import mesh_of
from tests.models import tiny
from vit_jax.evaluators import linear_probe
from vit_jax.evaluators.features import Features
from vit_jax.evaluators.linear_probe import LinearProbe
from vit_jax.models import zoo

K, N = 5, 70
PROBE = LinearProbe(
    learning_rates=(0.5, 2.0),
    weight_decays=(0.0, 0.01),
    epochs=6,
    warmup_epochs=1.5,
    batch_size=32,
)


def features(count: int, seed: int) -> Features:
    values, labels = drawn(count, seed=seed)
    return Features(3 + 2 * values, labels, np.arange(count))


KNOWN, ASKED = features(N, 1), features(200, 2)


def trained(config: LinearProbe, mesh: str = "one"):
    context = SimpleNamespace(mesh=mesh_of(mesh), stop=lambda count: False)
    with jax.set_mesh(context.mesh):
        state = linear_probe.fit(config, KNOWN, context=context, num_classes=K)
        top1 = linear_probe.accuracies(state, ASKED, context=context)
    return jax.tree.map(np.asarray, state), top1


def by_definition(config: LinearProbe, rate: float, decay: float, kernel: np.ndarray):
    """The loop of MAE's code, in double precision: weights and accuracy."""
    weights = {"kernel": kernel.astype(np.float64), "bias": np.zeros(K)}
    moments = {name: np.zeros_like(w) for name, w in weights.items()}
    mean, var = np.zeros(kernel.shape[0]), np.ones(kernel.shape[0])
    size, steps = config.batch_size, N // config.batch_size
    for epoch in range(config.epochs):
        order = np.random.default_rng((config.seed, epoch)).permutation(N)
        for step in range(steps):
            ids = order[step * size : (step + 1) * size]
            x, y = KNOWN.values[ids].astype(np.float64), KNOWN.labels[ids]
            mean = 0.9 * mean + 0.1 * x.mean(0)
            var = 0.9 * var + 0.1 * x.var(0, ddof=1)
            x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
            logits = x @ weights["kernel"] + weights["bias"]
            share = np.exp(logits - logits.max(1, keepdims=True))
            error = (share / share.sum(1, keepdims=True) - np.eye(K)[y]) / size
            gradients = {"kernel": x.T @ error + decay * weights["kernel"], "bias": error.sum(0)}
            if config.optimizer == "lars":
                lengths = [np.linalg.norm(g) for g in (weights["kernel"], gradients["kernel"])]
                gradients["kernel"] *= 0.001 * lengths[0] / lengths[1]
            at, warm = epoch + step / steps, config.warmup_epochs
            share = (
                at / warm
                if at < warm
                else 0.5 + 0.5 * np.cos(np.pi * (at - warm) / (config.epochs - warm))
            )
            for name, gradient in gradients.items():
                moments[name] = config.momentum * moments[name] + gradient
                weights[name] -= rate * size / 256 * share * moments[name]
    asked = (ASKED.values - mean) / np.sqrt(var + 1e-6)
    answers = (asked @ weights["kernel"] + weights["bias"]).argmax(1)
    return weights, (answers == ASKED.labels).mean()


@pytest.mark.parametrize(("optimizer", "rates"), [("sgd", (0.5, 2.0)), ("lars", (20.0, 100.0))])
def test_the_probes_of_a_grid_equal_those_trained_alone_and_the_definition(
    optimizer, rates
) -> None:
    config = dataclasses.replace(PROBE, optimizer=optimizer, learning_rates=rates)
    grid, top1 = trained(config)
    start = linear_probe._start(config, width=KNOWN.values.shape[1], num_classes=K)
    initial = np.asarray(start["weights"]["kernel"][0])
    for place, (rate, decay) in enumerate(config.grid):
        alone = dataclasses.replace(config, learning_rates=(rate,), weight_decays=(decay,))
        state, (own,) = trained(alone)
        weights, expected = by_definition(config, rate, decay, initial)
        for name in ("kernel", "bias"):
            found = grid["weights"][name][place]
            np.testing.assert_allclose(found, state["weights"][name][0], atol=2e-6)
            np.testing.assert_allclose(found, weights[name], atol=1e-5)
        assert top1[place] == own == expected
    assert np.ptp(grid["weights"]["kernel"], axis=0).max() > 1e-3, "the probes differ"


def test_few_steps_that_round_up_to_a_warm_up_of_all_are_trained() -> None:
    """One step an epoch, 0.9 epochs of warm-up: the schedule needs a step after it."""
    fields: dict[str, Any] = {"epochs": 1, "warmup_epochs": 0.9, "batch_size": N}
    state, _ = trained(dataclasses.replace(PROBE, **fields))
    assert np.isfinite(state["weights"]["kernel"]).all()


def test_numbers_of_a_grid_that_differ_little_have_names_of_their_own() -> None:
    config = dataclasses.replace(PROBE, learning_rates=(0.1, 0.10000001), weight_decays=(1e-5,))
    names = config._named({0: np.array([0.25, 0.5])})
    assert names["top1_lr0.1_wd1e-05"] == 0.25 and names["top1_lr0.10000001_wd1e-05"] == 0.5


@pytest.mark.parametrize("mesh", ["data", "all"])
def test_the_mesh_does_not_matter(mesh) -> None:
    config = dataclasses.replace(PROBE, optimizer="sgd")
    one, many = trained(config), trained(config, mesh)
    np.testing.assert_allclose(many[0]["weights"]["kernel"], one[0]["weights"]["kernel"], atol=2e-6)
    np.testing.assert_array_equal(many[1], one[1])


def test_a_run_is_measured_by_the_best_probe_and_reports_all(recipe, tmp_path, printed) -> None:
    probe = ("kind=linear_probe", "learning_rates=(0.1, 1.0)", "epochs=3", "warmup_epochs=1.0")
    more = ("optimizer=sgd", "train_images=512", "batch_size=100", "every.steps=6")
    options = [f"--config.evaluators.probe.{option}" for option in (*probe, *more)]
    assert cli.train(recipe, tmp_path / "run", *options, "--config.ema=0.0") == 0
    (logged,) = [line for line in runs.lines(tmp_path / "run") if "eval_probe/top1" in line]
    command = ("evaluate", "--workdir", tmp_path / "run", "--only", "probe", "--json")
    found = json.loads(printed(*command).splitlines()[-1])
    both = [found[f"probe/top1_lr{rate}_wd0"] for rate in ("0.1", "1")]
    assert found["probe/top1"] == max(both) > 0.2
    assert found["probe/learning_rate"] == (0.1, 1.0)[int(np.argmax(both))]
    assert logged["eval_probe/top1"] == pytest.approx(found["probe/top1"])
    layers = ("--config.evaluators.probe.every_layer=True",)
    found = json.loads(printed(*command, *layers).splitlines()[-1])
    both = [found[f"probe/top1_layer{number}"] for number in (1, 2)]
    assert found["probe/top1"] == max(both) and found["probe/layer"] == 1 + int(np.argmax(both))
    assert max(found[f"probe/top1_layer2_lr{rate}_wd0"] for rate in ("0.1", "1")) == both[1] > 0.2


@pytest.mark.parametrize("class_token", [True, False])
def test_the_features_of_the_last_layer_become_those_of_the_head(class_token) -> None:
    pool = "token" if class_token else "gap"
    model = tiny.model(class_token=class_token, pool=pool, norm_at="pooled")
    graphdef, params = nnx.split(model)
    context = SimpleNamespace(
        graphdef=graphdef, options=model.options, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3), dtype=np.uint8)
    layers, head = (
        jax.jit(lambda x, of=of: of(context, x, params))(images)
        for of in (linear_probe.features.of_layers, linear_probe.features.of_images)
    )
    assert layers.shape == (4, 3 * 32)
    np.testing.assert_allclose(model.encoder.norm(layers[:, -32:]), head, atol=1e-5)


def test_every_layer_of_a_model_without_blocks_is_refused() -> None:
    context = SimpleNamespace(options=zoo.options("BiT-R50x1", num_classes=K))
    with pytest.raises(ValueError, match="cannot read every layer of a BiT"):
        LinearProbe(every_layer=True).open(context)


@pytest.mark.parametrize(
    "fields",
    [
        *({"learning_rates": ()}, {"weight_decays": (0.1, 0.1)}, {"epochs": 0}),
        *({"momentum": 1.0}, {"seed": -1}),
    ],
)
def test_numbers_that_make_no_sense_are_refused(fields) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is"):
        LinearProbe(**fields, warmup_epochs=0.0)
