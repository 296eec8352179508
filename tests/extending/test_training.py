"""An objective, an evaluator and augmentations, added by this test: one line each."""

import dataclasses
import json
import signal
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

import vit_jax
from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.checkpoints import store
from vit_jax.data import augment
from vit_jax.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    HostAugmentation,
    ValueRange,
    normalize,
)
from vit_jax.data.record import DataFacts
from vit_jax.duration import Duration
from vit_jax.evaluators import EVALUATORS, Context, Evaluator, Measure
from vit_jax.models import zoo
from vit_jax.objectives import OBJECTIVES, Batch, Direction, Frozen, Loss, Objective
from vit_jax.parallel.mesh import to_global


@dataclasses.dataclass(frozen=True, kw_only=True)
class Brightness(Objective):
    """The mean feature predicts how bright the image is; no label is needed."""

    noise: float = 0.0  # largest error of the target

    metrics: ClassVar[Mapping[str, Direction]] = {"close": "max", "error": "min"}
    gives: ClassVar[frozenset[str]] = frozenset({"brightness"})

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise ValueError(f"config.objective.noise is {self.noise}: it must not be negative")

    def model(self, base: zoo.Options, facts: DataFacts) -> zoo.Options:
        if base.channels != 3:
            raise ValueError("config.objective is brightness: the model must take three channels")
        return zoo.change(base, num_classes=0)

    def prepare(self, batch: Batch, *, options: zoo.Options, key: jax.Array) -> Batch:
        drawn = jax.vmap(lambda index: jax.random.uniform(augment.at(key, index), minval=-1.0))
        exact = _brightness(batch["image"].astype(jnp.float32) / 255)
        return batch | {"brightness": exact + self.noise * drawn(batch["sample_index"])}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        error = _feature(model, batch["image"], key=key) - batch["brightness"]
        return Loss(error**2, jnp.ones_like(error), {"error": jnp.abs(error)})

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        error = jnp.abs(_feature(model, batch["image"]) - _brightness(batch["image"]))
        of_each = {"close": (error < 1).astype(jnp.float32), "error": error}
        return {k: jnp.where(batch["mask"], values, 0).sum() for k, values in of_each.items()}


def _brightness(images: jax.Array) -> jax.Array:
    return images.mean((1, 2, 3), dtype=jnp.float32)


def _feature(model: Any, images: jax.Array, **arguments: Any) -> jax.Array:
    return model.features(images, **arguments).astype(jnp.float32).mean(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread(Evaluator):
    """The distance between the features of the first images."""

    every: Duration = Duration()  # unset: evaluate_every
    power: float = 2.0  # exponent of the distance
    images: int = 512  # number of images that are compared

    def __post_init__(self) -> None:
        if not self.power >= 1:
            raise ValueError(f"power is {self.power}: it must be at least 1")

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {"spread": "max"}

    def open(self, context: Context) -> Measure:
        if self.images != context.batch_size:
            raise ValueError(f"spread takes {context.batch_size} images at once")

        @jax.jit
        def features(params: Any, images: jax.Array) -> jax.Array:
            normal = normalize(images, mean=context.mean, std=context.std)
            return nnx.merge(context.graphdef, params).features(normal)

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            with context.batches(context.held_out) as batches:
                images = {"image": next(batches)["image"]}
            placed = to_global(images, context.mesh, batch_size=context.batch_size)
            found = np.asarray(features(params, placed["image"]), np.float64)
            return {"spread": float((np.abs(found - found.mean(0)) ** self.power).mean())}

        return measure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Closeness(Spread):
    """The same number, but a smaller one is better."""

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {"spread": "min"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dim(Augmentation):
    """Makes every image darker by a random share."""

    most: float = 0.5  # the largest share by which brightness is reduced

    stream: ClassVar[int] = 77

    def __call__(self, batch: Batch, *, key: jax.Array) -> Batch:
        drawn = jax.vmap(lambda index: jax.random.uniform(augment.at(key, index)))
        left = 1 - self.most * drawn(batch["sample_index"])
        dimmed = batch["image"].astype(jnp.float32) * left[:, None, None, None]
        return batch | {"image": dimmed.astype(jnp.uint8)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Negative(HostAugmentation):
    """Inverts some images on the host."""

    probability: float = 0.5  # of inverting an image

    stream: ClassVar[str] = "negative"

    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        return 255 - image if numbers[0] < self.probability else image


@pytest.fixture(autouse=True)
def guests(monkeypatch) -> None:
    """Adds each guest by one line in a table."""
    monkeypatch.setitem(OBJECTIVES, "brightness", Brightness)
    monkeypatch.setitem(EVALUATORS, "spread", Spread)
    monkeypatch.setitem(EVALUATORS, "closeness", Closeness)
    monkeypatch.setitem(AUGMENTATIONS, "dim", Dim)
    monkeypatch.setitem(AUGMENTATIONS, "negative", Negative)


EVALUATOR = ("--config.evaluators.wide.kind=spread",)
OBJECTIVE = ("--config.objective.name=brightness", "--config.objective.noise=0.1")


def evaluated(workdir, printed, *arguments: str) -> dict[str, float]:
    return json.loads(printed("evaluate", "--workdir", workdir, "--json", *arguments))


def test_an_objective_needs_no_label_and_measures_in_its_own_way(life, capsys, printed) -> None:
    assert life.train("whole", *OBJECTIVE) == 0
    workdir = life.folder / "whole"
    *trained, last = runs.lines(workdir)
    assert len(trained) == 4 and all("error" in line for line in trained), "extras are reported"
    found = evaluated(workdir, printed)
    assert found["count"] == 5000 and found["error"] == pytest.approx(last["eval_error"])
    assert life.train("whole", *OBJECTIVE, "--config.objective.noise=0.2") == 2
    assert "objective.noise is 0.1 there and 0.2 here" in capsys.readouterr().err


def test_the_loss_of_an_objective_does_not_depend_on_micro_batches(life) -> None:
    for name, parts in (("one", 1), ("two", 2)):
        override = f"--config.optimizer.accumulate={parts}"
        assert life.train(name, *OBJECTIVE, override) == 0
    one, two = (runs.lines(life.folder / name)[0] for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-5)


def test_an_evaluator_has_its_own_period(life, printed) -> None:
    fields = [f"--config.evaluators.wide.{field}" for field in ("power=1.5", "every.steps=2")]
    assert life.train("whole", *EVALUATOR, *fields) == 0
    workdir = life.folder / "whole"
    lines = runs.lines(workdir)
    spread = {
        line["step"]: line["eval_wide/spread"] for line in lines if "eval_wide/spread" in line
    }
    assert spread.keys() == {2, 4}
    assert [line["step"] for line in lines if "eval_top1" in line] == [4]
    assert "eval_wide/ema_spread" in lines[-1]
    assert evaluated(workdir, printed)["wide/spread"] == pytest.approx(spread[4])


@pytest.mark.parametrize(
    ("metric", "guest", "better"),
    [
        ("ema_error", OBJECTIVE, "min"),
        ("wide/spread", EVALUATOR, "max"),
        ("wide/ema_spread", ("--config.evaluators.wide.kind=closeness",), "min"),
    ],
)
def test_the_best_is_what_the_mapping_of_metrics_says_in_a_run_resumed_and_loaded(
    life, printed, metric, guest, better
) -> None:
    best = (f"--config.checkpoint.metric={metric}", "--config.checkpoint.keep_best=1")
    every = ("--config.evaluate_every.steps=1", "--config.checkpoint.keep_last=1")
    workdir = life.lives(*guest, *best, *every)
    lines = runs.lines(workdir)
    values = {n["step"]: n[f"eval_{metric}"] for n in lines if f"eval_{metric}" in n}
    assert values.keys() == {1, 2, 3, 4}
    sign = {"min": -1, "max": 1}[better]
    step = max(values, key=lambda step: (sign * values[step], step))  # the last one of equal values
    assert json.loads((workdir / "model.json").read_text())["better"] == better
    for folder in (workdir, life.folder / "halves"):
        assert store.saved_steps(folder) == sorted({step, 4})
        loaded = nnx.to_pure_dict(nnx.state(vit_jax.load(folder, step="best")))
        saved = runs.arrays(folder, step=step)
        for path, array in traverse_util.flatten_dict(loaded, sep="/").items():
            np.testing.assert_array_equal(array, saved[f"ema/{path}"])
    assert evaluated(workdir, printed, "--step", "best")["step"] == step


def test_an_augmentation_changes_each_image_by_its_sample_index(life) -> None:
    dim = ("--config.augment=('flip','dim','value_range')", "--config.augment.dim.most=0.9")
    for name, overrides in (("dim", dim), ("plain", ())):
        assert life.train(name, *overrides, "--config.total.steps=2") == 0
    dim, plain = (runs.lines(life.folder / name)[0]["grad_norm"] for name in ("dim", "plain"))
    assert dim != plain
    indices = jnp.asarray([[3, 0], [4, 0], [5, 1]], jnp.uint32)
    batch = {"image": jnp.full((3, 2, 2, 3), 200, jnp.uint8), "sample_index": indices}

    def dimmed(batch: Batch) -> np.ndarray:
        steps = (Dim(most=0.9), ValueRange())
        return np.asarray(augment.augment(batch, steps, key=jax.random.key(1))["image"])

    here, back = dimmed(batch), dimmed({name: array[::-1] for name, array in batch.items()})
    np.testing.assert_array_equal(here, back[::-1])
    assert len(np.unique(here[:, 0, 0, 0])) == 3


def test_augmentations_of_the_host_come_before_those_of_the_device(life, capsys) -> None:
    order = "--config.augment=('negative','colour_jitter','flip','dim','value_range')"
    lines = runs.lines(life.lives(order, "--config.augment.negative.probability=0.3"))
    assert life.train("plain", "--config.augment=('flip','dim','value_range')") == 0
    assert lines[0]["grad_norm"] != runs.lines(life.folder / "plain")[0]["grad_norm"]
    capsys.readouterr()
    assert life.train("whole", order, "--config.augment.negative.probability=0.4") == 2
    assert "holds a run with another config (augment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*OBJECTIVE, "--config.objective.noise=-1.0"), "config.objective.noise is -1.0"),
        ((*OBJECTIVE, "--config.model.channels=1"), "must take three channels"),
        ((*OBJECTIVE, "--config.objective.label_smoothing=0.1"), "known: noise"),
        ((*OBJECTIVE, "--config.checkpoint.metric=top1"), "choose one of close, error"),
        ((*EVALUATOR, "--config.evaluators.wide.power=0.5"), "power is 0.5"),
        ((*EVALUATOR, "--config.evaluators.wide.images=9"), "spread takes 512 images at once"),
        (("--config.augment=('value_range','dim')",), "dim needs uint8 pixels: put it before"),
        (
            ("--config.augment=('flip','negative','value_range')",),
            "negative runs on the host, before flip, which runs on the device: put negative before",
        ),
        (
            (
                "--config.augment=('randaugment_timm','flip','value_range')",
                "--config.augment.randaugment_timm.fill=(1,2)",
            ),
            "fill is (1, 2): give a value for each of the 3 channels",
        ),
    ],
)
def test_what_a_guest_refuses_is_one_line_and_nothing_is_written(
    life, capsys, overrides, message
) -> None:
    life.refused(*overrides)
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_fields_of_guests_are_shown(printed) -> None:
    shown = {
        "objective": "objective.noise = 0.0 (number)\n        largest error of the target",
        "augment": "augment.dim.most = 0.5 (number)",
        "evaluators": "evaluators.NAME.power = 2.0 (number)",
    }
    for field, text in shown.items():
        assert text in printed("config", field)


def test_an_error_of_a_library_below_a_guest_is_not_hidden(life, monkeypatch) -> None:
    monkeypatch.setattr(Brightness, "model", lambda *_: json.loads("{"))
    with pytest.raises(json.JSONDecodeError):
        life.train("broken", *OBJECTIVE)


# A program that adds the guests like a user's script, and then runs the command line.
SCRIPT = """
import jax
jax.config.update("jax_enable_compilation_cache", True)  # reuse what the test has compiled
from tests.extending import test_training as guests
guests.OBJECTIVES["brightness"] = guests.Brightness
guests.EVALUATORS["spread"] = guests.Spread
guests.AUGMENTATIONS["dim"] = guests.Dim
from vit_jax import __main__
__main__.program()
"""


def test_a_run_of_guests_that_is_killed_resumes_to_the_same_bits(life, tmp_path) -> None:
    guests = (
        *(*OBJECTIVE, *EVALUATOR, "--config.augment=('flip','dim','value_range')"),
        *("--config.total.steps=24", "--config.checkpoint.every.steps=4"),
    )
    assert life.train("whole", *guests) == 0
    command = cli.CommandLine(tmp_path)
    arguments = command.train(tmp_path / "killed", *guests)
    with cli.start(*arguments, devices=8, program=(*cli.PYTHON, "-c", SCRIPT)) as child:
        saved = tmp_path / "killed" / "checkpoints" / "4"
        cli.wait_until(saved.exists, child)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert max(line["step"] for line in runs.lines(tmp_path / "killed")) < 24
    assert life.train("killed", *guests) == 0
    assert_same_bits(runs.arrays(tmp_path / "whole"), runs.arrays(tmp_path / "killed"))
    assert runs.lines(tmp_path / "whole") == runs.lines(tmp_path / "killed")
