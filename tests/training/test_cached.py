"""Training the head on features that are computed once equals computing them at every step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.data.test_pipeline import grey_files
from tests.extending.life import Life
from tests.models import tiny
from tests.training.one_step import make_config, mesh_of
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import DataFacts
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import cached, setup
from vit_jax.training.design import design

HEAD = ("--config.tune.kind=head", "--config.optimizer.learning_rate=0.01")
PLAIN = (
    *("--config.augment=('value_range',)", "--config.data.crop=center"),
    *("--config.data.mean=(0.3,0.4,0.5)", "--config.data.std=(0.2,0.3,0.4)"),
)
CACHED = "--config.tune.cached=true"
DISTILLATION = ("--config.objective.name=distillation", "--config.objective.teacher=TEACHER")


@pytest.fixture(scope="module")
def pretrained(recipe, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    assert cli.train(recipe, folder, "--config.total.steps=2", "--config.ema=0.0") == 0
    return f"--config.init_from={folder}"


def test_a_run_is_the_same_as_without_the_cache_and_resumes_bit_for_bit(
    pretrained, tmp_path, monkeypatch, capsys
) -> None:
    life = Life(tmp_path, monkeypatch)
    whole = life.lives(pretrained, *HEAD, *PLAIN, CACHED)
    said = capsys.readouterr().err
    assert "the features of 20,000 images are computed now, once" in said, said
    assert life.train("each", pretrained, *HEAD, *PLAIN) == 0
    ours, expected = runs.lines(whole), runs.lines(tmp_path / "each")
    assert [line.keys() for line in ours] == [line.keys() for line in expected]
    for line, other in zip(ours, expected, strict=True):
        assert line == pytest.approx(other, rel=1e-5, abs=1e-6)
    arrays, others = runs.arrays(whole), runs.arrays(tmp_path / "each")
    for path, array in arrays.items():
        if path.startswith("params/encoder/"):
            assert_same_bits({path: array}, {path: others[path]})
    head = "params/head/kernel"
    assert np.abs(arrays[head]).max() > 0
    assert_close(arrays[head], others[head], scaled=1e-5)


def test_a_broken_image_has_no_features_and_the_others_have_their_own() -> None:
    source = grey_files(11, broken={3: b"no image"})
    fields = {"tune.kind": "head", "tune.cached": True, "augment": ("value_range",)}
    config = make_config("sgd", fields=fields | {"data.crop": "center", "data.crop_pct": 1.0})
    options = tiny.options(num_classes=2)
    start = setup.Start(options=options, preprocessing=Preprocessing(image_size=(16, 24)))
    facts = DataFacts(train_size=11, class_names=source.class_names, num_classes=2)
    plan = design(config, facts, mesh_of("data"), start=start)
    model = tiny.model(num_classes=2)
    with jax.set_mesh(plan.mesh):
        bad = BadImages(size=11, max_bad=0.5)
        params = nnx.to_pure_dict(nnx.state(model))
        found = cached.features(plan, params, source, bad=bad)
    assert found.readable.tolist() == [index != 3 for index in range(11)]
    assert found.labels[found.readable].tolist() == [i % 2 for i in range(11) if i != 3]
    assert bad.count == 1
    grey = jnp.full((1, 16, 24, 3), 7 / 127.5 - 1)
    assert_close(found.values[7], model.pooled(grey)[0], atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"pool": "token"},
        {"pool": "gap", "norm_at": "pooled"},
        {"pool": "token_gap"},
        {"representation_size": 8},
        {"distillation": True},
        {"head_norm": "batch"},
    ],
)
def test_pooled_and_classified_are_the_two_halves_of_a_classifier(fields: dict[str, Any]) -> None:
    model = tiny.model(**fields, head_std=0.5)
    images = tiny.images(8)
    pooled = model.pooled(images)
    options = model.options
    assert pooled.shape == (len(images), options.heads, options.pooled_size)
    assert pooled.dtype == jnp.float32
    np.testing.assert_array_equal(model.classified(pooled), model(images))
    key = jax.random.key(0)  # the statistics of batch norm are those of the batch
    trained = model.classified(pooled, key=key)
    assert_close(trained, model(images, key=key), scaled=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((), "set --config.augment=\"('value_range',)\", or leave config.tune.cached out"),
        ((*PLAIN, "--config.progressive=((0.5,14),)"), "config.progressive changes the images"),
        ((*PLAIN, "--config.model.pool=map"), "the pooling of this model trains too"),
        (
            (*PLAIN, "--config.model.distillation=true", *DISTILLATION),
            "reads more than the features",
        ),
    ],
)
def test_what_changes_the_features_is_refused(
    fields, message, recipe, pretrained, tmp_path, refused
) -> None:
    target = tmp_path / "run"
    teacher = pretrained.removeprefix("--config.init_from=")
    given = [
        *("--config", recipe, "--workdir", target, pretrained, *HEAD, CACHED),
        *(field.replace("TEACHER", teacher) for field in fields),
    ]
    assert message in refused("train", *given, folder=target)
