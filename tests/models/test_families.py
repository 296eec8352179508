"""A family of models is one line in a table: no other code of the package knows it."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import vit_jax
from vit_jax.checkpoints import surgery
from vit_jax.models import fitting, flops, heads, zoo
from vit_jax.models.model import Model, ModelOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyOptions(ModelOptions):
    """The mean colour of an image, through one layer."""

    width: int = 8
    num_classes: int = 3

    @property
    def feature_size(self) -> int:
        return self.width


class Toy(Model):
    def __init__(self, options: ToyOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.layer = nnx.Linear(options.channels, options.width, rngs=rngs)
        if options.num_classes:
            self.head = heads.linear_head(options.width, options.num_classes, bias=0, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        features = self.features(images, key=key)
        return self.head(features) if self.options.num_classes else features

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        return jax.numpy.tanh(self.layer(images.mean(axis=(1, 2))))


@pytest.fixture
def toy(monkeypatch) -> ToyOptions:
    family = zoo.Family(options=ToyOptions, module=Toy, names={"Toy-S": {"width": 8}})
    monkeypatch.setitem(zoo.FAMILIES, "toy", family)
    return ToyOptions(image_size=(4, 6))


def test_a_new_family_is_created_saved_and_loaded(toy, tmp_path) -> None:
    model = zoo.init(toy, key=jax.random.key(0))
    vit_jax.save(model, tmp_path / "run")
    again = vit_jax.load(tmp_path / "run")
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    assert again.options == toy
    np.testing.assert_array_equal(again.features(images), model.features(images))
    other = vit_jax.load(tmp_path / "run", num_classes=5)
    assert other(images).shape == (2, 5)
    with pytest.raises(ValueError, match="unknown model option 'depth'"):
        vit_jax.load(tmp_path / "run", depth=2)
    with pytest.raises(ValueError, match="a Toy cannot be written in the timm layout"):
        vit_jax.save(model, tmp_path / "toy.pth", layout="timm")
    assert flops.forward(toy) == 2 * (3 * 8 + 8 * 3)
    assert toy.described() == "Toy, 4x6 pixels, 3 classes"


def test_the_names_of_a_new_family_are_known(toy) -> None:
    assert zoo.names()[-1] == "Toy-S"
    assert zoo.options("Toy-S", image_size=(4, 6)) == toy
    model = zoo.create("Toy-S", image_size=(4, 6), num_classes=2)
    assert model(np.zeros((1, 4, 6, 3), np.float32)).shape == (1, 2)
    with pytest.raises(ValueError, match="unknown model 'Toy-M': did you mean 'Toy-S'"):
        zoo.options("Toy-M")


def test_a_new_family_says_how_its_parameters_are_fitted(toy, monkeypatch) -> None:
    def widened(kernel: np.ndarray, source: ToyOptions, target: ToyOptions, _) -> np.ndarray:
        return np.pad(kernel, ((0, target.channels - source.channels), (0, 0)))

    family = zoo.Family(
        options=ToyOptions,
        module=Toy,
        fitting=fitting.Fitting(resize={"layer/kernel": widened}.get),
    )
    monkeypatch.setitem(zoo.FAMILIES, "toy", family)
    params = {path: np.ones(s, np.float32) for path, s in surgery.shapes(toy).items()}
    target = dataclasses.replace(toy, channels=4)
    moved, report = surgery.adapt(
        params, source=toy, target=target, key=jax.random.key(0), adapt_channels=True
    )
    assert report.resized == ("layer/kernel (3, 8) -> (4, 8)",)
    assert moved["layer/kernel"][3].tolist() == [0.0] * 8


def test_options_of_no_family_are_refused() -> None:
    with pytest.raises(
        ValueError, match="ToyOptions belongs to no family: add one to zoo.FAMILIES"
    ):
        zoo.init(ToyOptions(), key=jax.random.key(0))


def test_models_of_two_families_exchange_no_parameters(toy) -> None:
    params = {path: np.ones(s, np.float32) for path, s in surgery.shapes(toy).items()}
    with pytest.raises(ValueError, match="the checkpoint is of another model: Toy, not Swin"):
        surgery.adapt(params, source=toy, target=zoo.options("Swin-T"), key=jax.random.key(0))
