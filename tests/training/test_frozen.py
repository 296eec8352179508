"""A run with a frozen teacher: it imitates the same one when it goes on, or is refused."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from tests import cli, runs
from tests.compare import assert_close
from tests.extending.life import STEPS, Life
from tests.models import tiny
from vit_jax.checkpoints import run_folder
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives import OBJECTIVES, Batch, Direction, Frozen, FrozenModel
from vit_jax.objectives.classification import Classification
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training import frozen

STUDENT = (
    *("--config.model.name=DeiT-distilled-Ti/14", "--config.objective.name=distillation"),
    "--config.objective.distillation=soft",
)


@pytest.fixture(scope="module")
def teachers(recipe, tmp_path_factory):
    """Two teachers of the same classes, one for larger images, and one for grey images."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, *more in (
        ("one",),
        ("two", "--config.seed=7"),
        ("large", "--config.image_size=42"),
        (
            "grey",
            "--config.model.channels=1",
            "--config.data.mean=(0.5,)",
            "--config.data.std=(0.5,)",
        ),
    ):
        assert cli.train(recipe, folder / name, "--config.total.steps=2", *more) == 0
    return folder


def taught_by(teacher) -> tuple[str, ...]:
    return (*STUDENT, f"--config.objective.teacher={teacher}")


def test_a_distilled_run_goes_on_with_the_same_bits(teachers, tmp_path, monkeypatch):
    whole = Life(tmp_path, monkeypatch).lives(*taught_by(teachers / "one"))
    line = [line for line in runs.lines(whole) if "loss" in line][-1]
    assert {"base_loss", "distillation_loss", "agreement"} <= set(line)
    assert line["loss"] == pytest.approx((line["base_loss"] + line["distillation_loss"]) / 2, 1e-5)
    record = run_folder.read_json(whole, frozen.NAME)
    assert record["teacher"]["path"] == str(teachers / "one")
    saved = runs.arrays(whole)
    assert not [path for path in saved if "teacher" in path], "it is not saved with the run"


def test_the_teacher_is_sharded_like_the_student_and_the_result_is_the_same(
    teachers, recipe, tmp_path
):
    overrides = (*STEPS, *taught_by(teachers / "one"))  # the step that is compiled above
    losses = []
    for name, mesh in (("data", ()), ("fsdp", ("--config.mesh.fsdp=4",))):
        assert cli.train(recipe, tmp_path / name, *overrides, *mesh) == 0
        lines = [line["loss"] for line in runs.lines(tmp_path / name) if "loss" in line]
        losses.append(lines[:2])  # then rounding grows
    assert_close(*losses, scaled=1e-5)


def test_another_teacher_is_refused_when_the_run_goes_on_and_the_same_one_may_move(
    teachers, tmp_path, monkeypatch, capsys
):
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers / "one", teacher)
    life = Life(tmp_path, monkeypatch)
    assert life.train("run", *taught_by(teacher), stop_after=2) == 128 + 15
    before = runs.listing(tmp_path / "run")
    shutil.rmtree(teacher)
    shutil.copytree(teachers / "two", teacher)
    capsys.readouterr()
    assert life.train("run", *taught_by(teacher)) == 2
    assert "config.objective.teacher" in (error := capsys.readouterr().err)
    assert "changed since the run in" in error and error.count("\n") == 1
    assert runs.listing(tmp_path / "run") == before
    # The same teacher may have moved.
    assert life.train("run", *taught_by(teachers / "two")) == 2
    assert "changed since the run in" in capsys.readouterr().err
    assert life.train("run", *taught_by(teachers / "one")) == 0


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        ("", "config.objective.teacher is empty: name a run or a released file"),
        ("nowhere", "config.objective.teacher: "),
        (
            "grey",
            "config.objective.teacher takes images of 1 channels, and the model that trains has",
        ),
    ],
)
def test_a_teacher_that_cannot_serve_is_refused(
    teachers, teacher, told, tmp_path, monkeypatch, capsys
):
    path = teachers / teacher if teacher else ""
    Life(tmp_path, monkeypatch).refused(*taught_by(path))
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_a_teacher_of_larger_images_gets_them_resized_and_the_run_says_so(
    teachers, recipe, tmp_path, capsys
):
    overrides = ("--config.total.steps=2", *taught_by(teachers / "large"))
    assert cli.train(recipe, tmp_path / "run", *overrides) == 0
    assert (
        "config.objective.teacher takes images of 42x42: those of 28x28" in capsys.readouterr().err
    )
    loss = [line["loss"] for line in runs.lines(tmp_path / "run") if "loss" in line]
    assert np.isfinite(loss).all()


OWN = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}


def bound(**student: tuple[float, ...]):
    """A tiny model for images of 16x24 in its range `OWN`: as a teacher, and by itself."""
    model = tiny.model(num_classes=5)
    graphdef, params = nnx.split(model)
    described = frozen.Description(
        options=model.options, preprocessing=Preprocessing(image_size=(16, 24), **OWN)
    )
    design = frozen.design(described, make_mesh(MeshConfig(data=8)), **student)
    return design.bound(nnx.to_pure_dict(params)), model


def normalized(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    return jnp.asarray((pixels - np.float32(mean)) / np.float32(std))


def test_a_teacher_sees_the_images_in_its_own_value_range() -> None:
    """Whatever the student's mean and deviation are."""
    student = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    teacher, model = bound(**student)
    pixels = np.random.default_rng(0).random((2, 16, 24, 3), np.float32)
    assert_close(
        teacher(normalized(pixels, **student)), model(normalized(pixels, **OWN)), atol=1e-5
    )


def test_images_of_a_student_in_bfloat16_are_rounded_once() -> None:
    """A rounded scale would change the contrast of all images."""
    student = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    described = frozen.Description(
        options=tiny.model(num_classes=5).options,
        preprocessing=Preprocessing(image_size=(16, 24), mean=(0.5,) * 3, std=(0.5,) * 3),
    )
    design = frozen.design(described, make_mesh(MeshConfig(data=8)), **student)
    pixels = np.random.default_rng(0).random((64, 16, 24, 3), np.float32)
    images = normalized(pixels, **student).astype(jnp.bfloat16)
    seen = np.asarray(design._input(images), np.float32)
    exact = np.asarray(images, np.float32) * student["std"] + student["mean"]  # the pixels
    slopes = [
        np.polyfit(2 * exact[..., c].ravel() - 1, seen[..., c].ravel(), 1)[0] for c in range(3)
    ]
    assert_close(slopes, [1, 1, 1], rtol=2e-4)


@pytest.mark.parametrize("size", [(12, 12), (40, 31)])
def test_a_teacher_sees_the_images_in_its_own_size_as_pillow_resizes_them(size) -> None:
    student = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3)}
    teacher, model = bound(**student)
    pixels = np.random.default_rng(0).random((2, *size, 3), np.float32)
    resized = np.empty((2, 16, 24, 3), np.float32)
    for image, channel in np.ndindex(2, 3):
        plane = PIL.Image.fromarray(pixels[image, :, :, channel])
        resized[image, :, :, channel] = plane.resize((24, 16), PIL.Image.Resampling.BICUBIC)
    resized = resized.clip(0, 1)  # as the pixels of a file
    found, expected = teacher(normalized(pixels, **student)), model(normalized(resized, **OWN))
    assert_close(found, expected, atol=1e-4)
    other = model(normalized(resized + 0.01, **OWN))
    assert np.abs(other - expected).max() > 1e-3, "the comparison would see another resize"


def test_a_teacher_of_colours_sees_grey_images_in_all_channels() -> None:
    student = {"mean": (0.4,), "std": (0.2,)}
    teacher, model = bound(**student)
    pixels = np.random.default_rng(0).random((2, 16, 24, 1), np.float32)
    expected = model(normalized(pixels.repeat(3, axis=-1), **OWN))
    assert_close(teacher(normalized(pixels, **student)), expected, atol=1e-5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness(Classification):
    """Classification whose measure needs a frozen model: how often both choose the same class."""

    other: str = ""  # a run or a released file

    metrics: ClassVar[Mapping[str, Direction]] = {"likeness": "max"}

    def frozen_models(self) -> Mapping[str, FrozenModel]:
        return {"other": FrozenModel(self.other, "other")}

    def measure(self, model: Any, batch: Batch, *, frozen: Frozen) -> dict[str, jax.Array]:
        own, other = model(batch["image"]), frozen["other"](batch["image"])
        same = own.argmax(-1) == other.argmax(-1)
        return {"likeness": jnp.sum(same & batch["mask"], dtype=jnp.float32)}


@pytest.fixture
def evaluated(printed):
    def evaluate(*arguments: str) -> dict[str, float]:
        return json.loads(printed("evaluate", "--json", *arguments))

    return evaluate


def test_evaluations_of_a_run_and_of_a_file_have_the_frozen_models_of_the_measure(
    teachers, recipe, tmp_path, monkeypatch, evaluated, refused
) -> None:
    monkeypatch.setitem(OBJECTIVES, "likeness", Likeness)
    other = tmp_path / "other"
    shutil.copytree(teachers / "one", other)
    objective = ("--config.objective.name=likeness", f"--config.objective.other={other}")
    life = Life(tmp_path, monkeypatch)
    assert life.train("run", *objective) == 0
    last = [line for line in runs.lines(tmp_path / "run") if "eval_likeness" in line][-1]
    found = evaluated("--workdir", str(tmp_path / "run"))
    assert found["likeness"] == pytest.approx(last["eval_likeness"])
    assert found["ema_likeness"] == pytest.approx(last["eval_ema_likeness"])
    file = ("--workdir", str(tmp_path / "run.npz"), "--config", str(recipe), *objective)
    assert cli.run("convert", tmp_path / "run", file[1]) == 0
    assert evaluated(*file)["likeness"] == pytest.approx(found["ema_likeness"], abs=1e-3)
    shutil.rmtree(other)
    shutil.copytree(teachers / "two", other)
    error = refused("evaluate", "--workdir", tmp_path / "run")
    assert "config.objective.other" in error and "changed since the run in" in error


def test_a_distilled_run_is_evaluated_without_its_teacher(
    teachers, tmp_path, monkeypatch, evaluated
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(teachers / "one", teacher)
    assert Life(tmp_path, monkeypatch).train("run", *taught_by(teacher)) == 0
    shutil.rmtree(teacher)
    assert evaluated("--workdir", str(tmp_path / "run"))["count"] == 5000
