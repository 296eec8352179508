"""Few-shot least squares equals its definition, as big_vision computes it, on 8 devices too."""

import json

import numpy as np
import pytest

from tests import cli, runs
from vit_jax.data.arrays import ArraySource
from vit_jax.evaluators import few_shot
from vit_jax.evaluators.features import Features
from vit_jax.evaluators.few_shot import FewShot, LeastSquares

K, D = 5, 24
L2 = (2.0**-10, 1.0, 2.0**10)


def drawn(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, count).astype(np.int32)
    centres = np.random.default_rng(0).standard_normal((K, D))
    return (centres[labels] + 1.3 * rng.standard_normal((count, D))).astype(np.float32), labels


def by_definition(x, labels, asked, wanted, l2: float) -> float:
    """Ridge regression of targets -1 and 1 on whitened features with a constant of 100."""
    x, asked = x.astype(np.float64), asked.astype(np.float64)
    mean, std = x.mean(0), x.std(0) + 1e-5
    x, asked = ((one - mean) / std for one in (x, asked))
    x, asked = (np.c_[one, np.full(len(one), 100.0)] for one in (x, asked))
    targets = np.where(np.arange(K) == labels[:, None], 1.0, -1.0)
    weights = np.linalg.solve(x.T @ x + l2 * np.eye(D + 1), x.T @ targets)
    return float(((asked @ weights).argmax(1) == wanted).mean())


@pytest.mark.parametrize("count", [15, 25, 200])  # fewer images than features, as many, and more
def test_both_forms_of_the_solution_equal_ridge_regression(count) -> None:
    x, labels = drawn(count, seed=1)
    asked, wanted = drawn(333, seed=2)
    found = LeastSquares(x, labels, num_classes=K).accuracies(
        Features(asked, wanted, np.arange(333)), l2=L2
    )
    expected = [by_definition(x, labels, asked, wanted, l2) for l2 in L2]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert 0.4 < max(expected) < 1


def test_the_images_of_a_seed_are_those_of_big_vision() -> None:
    labels = np.random.default_rng(3).integers(0, K, 60).astype(np.int32)
    source = ArraySource(
        name="data",
        class_names=tuple("abcde"),
        images=np.zeros((60, 2, 2), np.uint8),
        labels=labels,
    )
    for seed, found in enumerate(few_shot.choose(source, shots=4, seeds=3)):
        rng = np.random.default_rng(seed)
        expected = [rng.permutation(np.where(labels == k)[0]) for k in range(K)]
        np.testing.assert_array_equal(found, [ids[:4] for ids in expected])


def test_of_several_penalties_the_best_on_average_is_reported() -> None:
    known = Features(*drawn(60, seed=1), np.arange(60))
    asked = Features(*drawn(333, seed=2), np.arange(333))
    of_class = [np.flatnonzero(known.labels == number) for number in range(K)]
    chosen = [np.array([ids[seed : seed + 3] for ids in of_class]) for seed in range(2)]
    penalties = (2.0**-10, 2.0**5, 2.0**14)
    alone = [
        FewShot(shots=(3,), l2=(one,))._measured(known, asked, chosen)["top1_3shot"]
        for one in penalties
    ]
    found = FewShot(shots=(3,), l2=penalties)._measured(known, asked, chosen)
    assert found["top1_3shot"] == max(alone) and alone.index(max(alone)) > 0
    assert found["l2_3shot"] == penalties[alone.index(max(alone))]


def test_a_model_is_measured_on_the_features_of_its_head(recipe, tmp_path, printed) -> None:
    """In a run with an average, and again by `evaluate`."""
    few = ("kind=few_shot", "shots=(2, 5)", "seeds=2", f"l2={L2}", "every.steps=6")
    options = [f"--config.evaluators.few.{option}" for option in few]
    assert cli.train(recipe, tmp_path / "run", *options) == 0
    (logged,) = [line for line in runs.lines(tmp_path / "run") if "eval_few/top1_2shot" in line]
    found = json.loads(
        printed("evaluate", "--workdir", tmp_path / "run", "--only", "few", "--json").splitlines()[
            -1
        ]
    )
    for name in ("top1_2shot", "std_5shot", "l2_5shot", "ema_top1_5shot"):
        assert found[f"few/{name}"] == pytest.approx(logged[f"eval_few/{name}"])
    assert found["few/top1_5shot"] > 0.2 and found["few/count"] == 5000


def test_a_class_of_too_few_images_is_named(recipe, tmp_path, refused) -> None:
    options = [
        *("--config.evaluators.few.kind=few_shot", "--config.evaluators.few.shots=(5, 2001)"),
        *("--config.data.per_class=20",),
    ]
    said = refused("train", "--config", recipe, "--workdir", tmp_path / "run", *options)
    assert "few_shot needs 2001 training images of each class, but" in said
    assert "has 20 of class 'T-shirt/top', and 9 other classes too few" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"shots": (5, 5)}, {"l2": (0.0,)}, {"seeds": 0}])
def test_numbers_that_make_no_sense_are_refused(fields) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is"):
        FewShot(**fields)
