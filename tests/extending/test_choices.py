"""A guest of each kind that a config chooses: one dataclass, one line in a table, nothing else."""

import dataclasses
from typing import Any

import numpy as np
import optax
import pytest

import vit_jax
from tests import cli, runs
from tests.compare import assert_same_bits
from vit_jax.data.arrays import ArraySource
from vit_jax.data.crops import CROPS
from vit_jax.data.record import UNKNOWN, Source
from vit_jax.data.sources import SOURCES
from vit_jax.duration import Duration
from vit_jax.training.optimizer import OPTIMIZERS
from vit_jax.training.schedules import DECAYS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignDescent:
    """Steps of equal size, along the signs of a momentum."""

    memory: float = 0.9  # decay of the momentum

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        momentum = optax.trace(decay=self.memory)
        return optax.chain(momentum, optax.scale_by_sign(), optax.scale_by_learning_rate(schedule))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stairs:
    """Halves the rate at regular steps."""

    tread: Duration = Duration(percent=50.0)  # length of one stair

    def curve(self, peak: float, /, **units: int) -> Any:
        steps = self.tread.to_steps(**units)
        return lambda elapsed, progress: peak * 0.5 ** (elapsed // steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots:
    """Bright or dark images: two classes that are easily learned."""

    size: int = 28  # side of an image in pixels
    label = "dots"

    def splits(self, *, train_split: str) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def open(self, split: str, *, train_split: str) -> Source:
        labels = np.arange(64, dtype=np.int32) % 2
        images = np.full((64, self.size, self.size), 0, np.uint8) + labels[:, None, None] * 200
        return ArraySource(
            name=f"dots {split}",
            class_names=("dark", "bright"),
            images=images.astype(np.uint8),
            labels=np.full_like(labels, UNKNOWN) if split == "validation" else labels,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corner:
    """The top left corner."""

    margin: int = 0  # pixels that are left out at the top and left

    def check(self, size: tuple[int, int], /) -> None:
        pass

    def __call__(self, image: np.ndarray, target: Any, /, *, numbers: np.ndarray) -> np.ndarray:
        height, width = target.size
        return image[self.margin : self.margin + height, self.margin : self.margin + width]


RECIPE = """
from vit_jax.config import default_config


def get_config():
    config = default_config()
    config.image_size = (28, 28)
    config.batch_size = 16
    config.total.steps = 4
    config.checkpoint.every.steps = 2
    config.log_every.steps = 1
    config.evaluate_every.percent = 0.0
    config.model.name = "Ti/14"
    config.model.width = 16
    config.model.depth = 2
    config.model.mlp_dim = 32
    config.model.num_heads = 2
    config.data.source = "dots"
    config.data.size = 32
    config.data.crop = "corner"
    config.data.margin = 2
    config.data.crop_pct = 1.0
    config.data.threads = 2
    config.optimizer.name = "sign"
    config.optimizer.memory = 0.5
    config.schedule.decay = "stairs"
    config.schedule.tread.steps = 2
    return config
"""


@pytest.fixture
def guests(monkeypatch) -> None:
    """Adds each guest by one line in a table."""
    monkeypatch.setitem(OPTIMIZERS, "sign", SignDescent)
    monkeypatch.setitem(DECAYS, "stairs", Stairs)
    monkeypatch.setitem(SOURCES, "dots", Dots)
    monkeypatch.setitem(CROPS, "corner", Corner)


@pytest.mark.usefixtures("guests")
def test_guests_train_resume_evaluate_and_are_loaded(tmp_path, capsys, printed) -> None:
    recipe = runs.write_recipe(tmp_path, RECIPE)

    def train(name: str, *overrides: str) -> int:
        return cli.train(recipe, tmp_path / name, *overrides)

    assert train("whole") == train("halves", "--config.total.steps=2") == train("halves") == 0
    rates = [line["learning_rate"] for line in runs.lines(tmp_path / "whole") if "loss" in line]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    assert_same_bits(runs.arrays(tmp_path / "whole"), runs.arrays(tmp_path / "halves"))
    # The test split: the other one has no labels.
    assert "on 64 images" in printed("evaluate", "--workdir", tmp_path / "whole")
    assert vit_jax.load(tmp_path / "whole").class_names == ("dark", "bright")
    assert train("whole", "--config.optimizer.memory=0.9") == 2
    assert "optimizer.memory is 0.5 there and 0.9 here" in capsys.readouterr().err
    assert train("other", "--config.data.train_split=validation") == 2
    assert "dots validation: 64 of 64 images have no label" in capsys.readouterr().err
    assert train("other", "--config.optimizer.b1=0.5") == 2
    error = capsys.readouterr().err
    assert "config.optimizer.b1 belongs to adamw, adam, " in error
    assert "; config.optimizer.name is 'sign'" in error
    expected = "schedule.decay=stairs: Halves the rate at regular steps."
    assert expected in printed("config", "schedule.decay")
