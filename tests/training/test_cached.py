"""Training the head on features that are computed once equals computing them at every step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import cli, runs
from tests.compare import assert_close, assert_same_bits
from tests.extending.life import Life
from tests.models import tiny

HEAD = ("--config.tune.kind=head", "--config.optimizer.learning_rate=0.01")
PLAIN = ("--config.augment=('value_range',)", "--config.data.crop=center")
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
