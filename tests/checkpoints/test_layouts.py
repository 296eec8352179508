"""A layout is one value in a table; functions that it does not set have documented defaults."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import vit_jax
from tests.checkpoints.parity import TINY
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.models import zoo
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.interpolation import Methods


def infer(arrays: Any, hints: Hints) -> ViTOptions:
    """The options of the only model of the layout; the hints have its classes and image size."""
    size = hints.config.get("image_size") or TINY.image_size
    return dataclasses.replace(TINY, num_classes=len(arrays["head/bias"]), image_size=tuple(size))


# What a layout has to say.
TOY = Layout(
    models=(ViTOptions,),
    recognises=lambda arrays: "toy" in " ".join(arrays),
    infer=infer,
    entries=lambda options: [
        Entry(path, (path if path.startswith("head") else f"toy/{path}",))
        for path in surgery.shapes(options)
    ],
    preprocessing=lambda options, hints: released(options.image_size, hints, crop_pct=0.5),
)


@pytest.fixture
def model(monkeypatch) -> Any:
    monkeypatch.setitem(layouts.LAYOUTS, "toy", (TOY,))
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(TINY).items()
    return load.assemble(TINY, {k: rng.normal(size=s).astype(np.float32) for k, s in shapes})


def test_a_new_layout_is_written_recognised_and_read(model, tmp_path) -> None:
    vit_jax.save(model, tmp_path / "m.npz", layout="toy")
    found = load.read(tmp_path / "m.npz")
    assert found.layout == "toy" and found.options == TINY
    assert found.resize == Methods(), "that of vit_jax, by default"
    assert found.notes == ()
    images = np.zeros((1, 16, 16, 3), np.float32)
    np.testing.assert_array_equal(vit_jax.load(tmp_path / "m.npz")(images), model(images))


def test_by_default_a_layout_is_a_npz_for_its_types_of_models(model, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"files of the toy layout end in \.npz"):
        vit_jax.save(model, tmp_path / "m.pth", layout="toy")
    with pytest.raises(ValueError, match="a Swin cannot be written in the toy layout"):
        layouts.writer(zoo.options("Swin-T"), "toy")


def test_a_read_only_layout_cannot_be_written(model, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(layouts.LAYOUTS, "toy", (dataclasses.replace(TOY, read_only=True),))
    with pytest.raises(ValueError, match="a ViT cannot be written in the toy layout"):
        vit_jax.save(model, tmp_path / "m.npz", layout="toy")


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_numerics_of_a_layout_exclude_fields_of_a_run(name) -> None:
    """Files do not contain these fields, so reading a file must not change them."""
    for layout in layouts.LAYOUTS[name]:
        for kind in layout.models:
            assert not set(layout.numerics(kind())) & set(zoo.COMPUTE_FIELDS)
