"""A model family and its layout, added by this test: each needs one line in a table."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vit_jax
from tests import cli, runs
from vit_jax.checkpoints.layouts import LAYOUTS, Layout
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.table import Entry, check_holds, pair
from vit_jax.models import zoo
from vit_jax.models.heads import linear_head
from vit_jax.models.model import Model, ModelOptions
from vit_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsOptions(ModelOptions):
    """The mean colour of every row of an image, through two layers."""

    width: int = 8
    depth: int = 1
    num_classes: int = 10

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width is {self.width}: it must be even")

    @property
    def feature_size(self) -> int:
        return self.width


class Rows(Model):
    def __init__(self, options: RowsOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.layer = nnx.Linear(options.channels, options.width, rngs=rngs)
        self.mixer = nnx.Linear(options.width, options.width, rngs=rngs)
        if options.num_classes:
            self.head = linear_head(options.width, options.num_classes, bias=0, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        features = self.features(images, key=key)
        return self.head(features) if self.options.num_classes else features

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        rows = jnp.tanh(self.layer(jnp.asarray(images).mean(axis=2)))
        return jnp.tanh(self.mixer(rows.mean(axis=1)))


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> RowsOptions:
    channels, width = arrays["rows/kernel"].shape
    return RowsOptions(
        image_size=hints.wanted_size or (28, 28),
        channels=channels,
        width=width,
        num_classes=arrays["logits/kernel"].shape[1] if "logits/kernel" in arrays else 0,
    )


def entries(options: RowsOptions) -> list[Entry]:
    check_holds(options, "rows", holds={"image_size", "channels", "width", "num_classes"})
    names = {"layer": "rows", "mixer": "mix"} | ({"head": "logits"} if options.num_classes else {})
    return [e for path, name in names.items() for e in pair(path, name, "kernel", "bias")]


def preprocessing(options: RowsOptions, hints: Hints) -> Preprocessing:
    return Preprocessing(image_size=options.image_size)


LAYOUT = Layout(
    models=(RowsOptions,),
    recognises=lambda arrays: "rows/kernel" in arrays,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
)


@pytest.fixture(autouse=True)
def guests(monkeypatch) -> None:
    """Adds each guest by one line in a table."""
    names: dict[str, dict[str, Any]] = {"Rows-S": {"width": 8}, "Rows-B": {"width": 64}}
    family = zoo.Family(options=RowsOptions, module=Rows, names=names)
    monkeypatch.setitem(zoo.FAMILIES, "rows", family)
    monkeypatch.setitem(LAYOUTS, "rows", (LAYOUT,))


# The tiny recipe sets fields that only a ViT has: replace them.
RECIPE = re.sub(r"    config\.model\..*\n", "", runs.RECIPE).replace(
    "    return config", '    config.model.name = "Rows-S"\n    return config'
)


def test_a_family_trains_resumes_and_is_written_in_its_own_layout(life, capsys) -> None:
    runs.write_recipe(life.folder, RECIPE)
    workdir = life.lives("--config.model.width=4")
    model = vit_jax.load(workdir)
    assert model.options == RowsOptions(image_size=(28, 28), width=4)
    file = str(life.folder / "rows.npz")
    assert cli.run("convert", workdir, file, "--layout", "rows", "--check") == 0
    again = vit_jax.load(file)
    assert again.options == model.options
    images = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype(np.float32)
    np.testing.assert_array_equal(model(images), again(images))
    tuned = (f"--config.init_from={file}", "--config.model.name=")
    assert life.train("tuned", *tuned) == 0
    assert "from " in capsys.readouterr().err
    assert "Rows-B" in zoo.names()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--config.model.width=3",), "width is 3: it must be even"),
        (("--config.model.heads=3",), "unknown config field config.model.heads of Rows-S"),
        (("--config.model.name=Rows-L",), "unknown model 'Rows-L': did you mean 'Rows-"),
        (("--config.init_from=x.npz", "--config.model.name=Swin-T"), "x.npz"),
    ],
)
def test_what_a_family_refuses_is_one_line(life, capsys, overrides, message) -> None:
    runs.write_recipe(life.folder, RECIPE)
    life.refused(*overrides)
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


def test_an_error_of_a_family_alone_is_one_line(life, capsys, monkeypatch) -> None:
    """The family is from another package than everything else in the tables."""
    monkeypatch.delitem(LAYOUTS, "rows")
    runs.write_recipe(life.folder, RECIPE)
    life.refused("--config.model.width=3")
    assert capsys.readouterr().err == "vit_jax: config.model.width is 3: it must be even\n"


def test_a_layout_refuses_what_it_cannot_hold(tmp_path) -> None:
    deep = zoo.init(RowsOptions(image_size=(28, 28), depth=2), key=jax.random.key(0))
    with pytest.raises(ValueError, match="the rows layout cannot hold depth=2"):
        vit_jax.save(deep, tmp_path / "deep.npz", layout="rows")
    plain = vit_jax.create("Rows-S", image_size=28)
    with pytest.raises(ValueError, match="a Rows cannot be written in the timm layout"):
        vit_jax.save(plain, tmp_path / "plain.pth", layout="timm")
    assert not list(tmp_path.iterdir())
