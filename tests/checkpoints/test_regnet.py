"""RegNetY of timm is read exactly, as a teacher."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import load, surgery
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm import regnet
from vit_jax.models import zoo


def test_logits_and_features_are_those_of_timm(shared) -> None:
    folder = shared / "fixtures/timm_regnety"
    io = np.load(folder / "io.npz")
    model = vit_jax.load(folder / "model.safetensors")
    images = io["images"]
    assert_close(model(images), io["expected_logits"])
    assert_close(model.features(images), io["expected_features"].mean(axis=(1, 2)))


def test_the_names_and_shapes_of_regnety_160_are_known(shared) -> None:
    manifest = json.loads((shared / "fixtures/manifests/timm_regnety_160.json").read_text())
    arrays = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in manifest["regnety_160"].items()
    }
    assert regnet.recognises(arrays)
    canonical = regnet.canonical(arrays, Hints())
    options = regnet.infer(canonical, Hints())
    assert options == zoo.options("RegNetY-160")
    params = table.read(regnet.entries(options), canonical, surgery.shapes(options))
    trained = sum(a.size for p, a in params.items() if not p.endswith(("/mean", "/variance")))
    assert trained == 83_590_140


@pytest.mark.parametrize(
    ("stem", "ratio", "widths", "group_width"),
    [(18, 0.25, (24, 40), 8), (32, 0.1, (40, 104), 8), (32, 0.25, (16, 64), 32)],
)
def test_sizes_follow_from_all_blocks(stem, ratio, widths, group_width) -> None:
    """The channels of squeezes are rounded, and a narrow stage has one group, as in timm."""
    changes = {"stem_width": stem, "squeeze": ratio, "widths": widths, "depths": (1, 2)}
    options = zoo.options("RegNetY-160", group_width=group_width, **changes)
    shapes = surgery.shapes(options)
    params = {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
    arrays = table.write(regnet.entries(options), params)
    found = regnet.infer(arrays, Hints())
    assert found == options


def test_squeezes_that_no_share_gives_are_refused(shared) -> None:
    arrays = safetensors_numpy.load_file(shared / "fixtures/timm_regnety/model.safetensors")
    name = "s2.b1.se.fc1.weight"
    arrays[name] = np.tile(arrays[name], (3, 1, 1, 1))
    with pytest.raises(ValueError, match="are no common share of the inputs of the blocks"):
        regnet.infer(arrays, Hints())


def test_a_saved_regnet_is_loaded_again(shared, tmp_path) -> None:
    path = shared / "fixtures/timm_regnety/model.safetensors"
    vit_jax.save(vit_jax.load(path), tmp_path / "run")
    before, after = load.read(path), load.read(tmp_path / "run")
    assert before.options == after.options
    for name, array in before.params.items():
        np.testing.assert_array_equal(after.params[name], array)


def test_it_is_not_written_as_a_timm_file(shared, tmp_path) -> None:
    model = vit_jax.load(shared / "fixtures/timm_regnety/model.safetensors")
    with pytest.raises(ValueError, match="RegNet cannot be written in the timm layout"):
        vit_jax.save(model, tmp_path / "a.safetensors", layout="timm")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (224, 448)}, "must have one number for each stage"),
        ({"depths": (2, 4, 0, 1)}, "depths .* positive"),
        ({"group_width": 100}, "must be multiples of group_width 100"),
        ({"squeeze": 0.0}, "squeeze is 0.0"),
        ({"stem_width": 0}, "must be positive"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        zoo.options("RegNetY-160", **changes)


def test_a_missing_stage_is_named(shared) -> None:
    arrays = safetensors_numpy.load_file(shared / "fixtures/timm_regnety/model.safetensors")
    without = {name: array for name, array in arrays.items() if not name.startswith("s2.")}
    with pytest.raises(ValueError, match=r"stages are \[1, 3, 4\]: some are missing"):
        regnet.infer(without, Hints())
