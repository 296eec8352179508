"""The grid of ambiguous positions comes from the user or the files beside, or is refused."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints.parity import TINY
from vit_jax.checkpoints import layouts, load, save, surgery
from vit_jax.checkpoints.layouts import grids
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.models.preprocessing import Preprocessing


def checkpoint(**changes: Any) -> load.Checkpoint:
    """A tiny model with random parameters."""
    options = dataclasses.replace(TINY, **{"depth": 1, **changes})
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    if not options.key_bias:
        params["encoder/blocks/attention/qkv/bias"][:, 1] = 0
    expects = Preprocessing(image_size=options.image_size)
    return load.Checkpoint(options=options, params=params, preprocessing=expects)


def bare(path, layout: str, **changes: Any) -> load.Checkpoint:
    """Writes a tiny model and removes the config beside it."""
    original = checkpoint(**changes)
    save.write(original, path, layout=layout)
    (path.parent / "config.json").unlink()
    return original


@pytest.mark.parametrize(
    ("layout", "changes", "message"),
    [
        ("timm", {}, "169 positions leave the grid of patches open.* 12x14, 8x21, .* after 1 row of"
         " other tokens; or 13x13, 1x169 .*without"),
        ("deit", {}, "169 positions leave the grid of patches open"),
        ("mae", {}, "169 positions leave the grid of patches open"),
        ("beit", {"key_bias": False}, "169 positions leave the grid of patches open"),
        ("vit_jax", {"activation": "gelu_tanh"}, "168 positions are not a square: .* 12x14, 8x21"),
        ("timm", {"pool": "gap"}, "168 positions are not a square"),
        ("big_vision", {"activation": "gelu_tanh"}, "168 positions leave the grid of patches open"),
        ("timm", {"image_size": (12, 20)}, "16 positions leave the grid of patches open"),
        ("deit", {"distillation": True, "image_size": (8, 28)}, "16 positions leave the grid"),
    ],
)  # fmt: skip
def test_an_unknown_grid_is_refused_with_all_readings(tmp_path, layout, changes, message):
    suffix = {"timm": ".safetensors"}.get(layout, ".pth")
    path = tmp_path / f"m{'.npz' if layout in ('vit_jax', 'big_vision') else suffix}"
    size = {"image_size": (56, 48)} | changes
    original = bare(path, layout, **size)
    with pytest.raises(ValueError, match=message) as error:
        load.read(path, num_heads=3)
    assert "give the checkpoint's grid (convert: --grid)" in str(error.value)
    grid = original.options.grid
    given = load.read(path, num_heads=3, grid=grid)
    asked = load.read(path, num_heads=3, wanted_size=original.options.image_size)
    for again in (given, asked):
        assert again.options.grid == grid
        for name, array in original.params.items():
            if layout != "big_vision" or name not in ("encoder/cls", "encoder/position"):
                np.testing.assert_array_equal(again.params[name], array)
    assert any("the grid of the given image_size" in note for note in asked.notes)


def test_the_image_size_given_to_load_chooses_the_grid(tmp_path):
    original = bare(tmp_path / "m.safetensors", "timm", image_size=(56, 48))
    model: Any = vit_jax.load(tmp_path / "m.safetensors", num_heads=3, image_size=(56, 48))
    np.testing.assert_array_equal(model.encoder.position[...], original.params["encoder/position"])


def test_the_only_square_grid_is_assumed_with_a_note(tmp_path):
    path = tmp_path / "m.npz"
    bare(path, "vit_jax", activation="gelu_tanh", image_size=(8, 32))
    read = load.read(path)
    assert read.options.grid == (4, 4)
    (note,) = read.notes
    assert note.startswith("16 positions are read as 4x4, because no file beside it gives a size")
    assert "2x8" in note
    assert load.read(path, wanted_size=(8, 32)).options.grid == (2, 8)
    assert load.read(path, grid=(2, 8)).options.grid == (2, 8)


@pytest.mark.parametrize(
    ("rows", "pixels", "tokens", "bare_tokens", "grid", "noted"),
    [
        (197, 16, 1, False, (14, 14), False),
        (577, 16, 1, False, (24, 24), False),
        (1370, 14, 1, False, (37, 37), False),
        (198, 16, 2, False, (14, 14), False),
        (196, 16, 0, False, (14, 14), False),
        (196, 16, 1, True, (14, 14), True),  # DeiT III, or 13x15 and a class token
        (1369, 14, 5, True, (37, 37), True),  # DINOv2 with registers
    ],
)
def test_grids_of_released_sizes_are_recognised(rows, pixels, tokens, bare_tokens, grid, noted):
    kinds = "always" if not tokens else "released" if bare_tokens else "never"
    readings = [grids.Reading(rows, square=kinds)]
    if tokens:
        readings.insert(0, grids.Reading(rows - tokens, tokens))
    # Another size that is asked for, of as many patches, does not change what they are.
    other = {196: (7 * 16, 28 * 16), 576: (18 * 16, 32 * 16)}.get(rows - tokens)
    hints = Hints(wanted_size=other)
    found, others = grids.choose(readings, hints, pixels=(pixels, pixels))
    assert found == grid
    assert others == rows - grid[0] * grid[1]
    assert bool(hints.notes) == noted


def test_relative_biases_alone_may_fit_two_grids():
    table = (2 * 1 - 1) * (2 * 5 - 1) + 3  # of 1x5 patches, or 2x2
    hints = Hints()
    assert grids.of_relative(table, hints, pixels=(4, 4)) == (2, 2)
    assert "1x5" in hints.notes[0]
    assert grids.of_relative(table, Hints(wanted_size=(4, 20)), pixels=(4, 4)) == (1, 5)


def test_an_image_size_in_config_json_that_does_not_fit_is_noted(tmp_path):
    table = layouts.writer(TINY, "timm")
    arrays = layouts.table.write(table.entries(TINY), checkpoint(depth=2).params)
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    config = {"architecture": "vit", "global_pool": "token", "model_args": {"num_heads": 3}}
    config["pretrained_cfg"] = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = load.read(tmp_path)
    assert read.options.grid == (4, 4)
    note = "its positions do not fit the image size 32x32 of the files beside it"
    assert note in read.notes


def test_timms_no_embed_class_is_read(tmp_path):
    bare(tmp_path / "m.safetensors", "timm", image_size=(16, 16), class_position=False)
    with pytest.raises(ValueError, match="leave the grid of patches open"):
        load.read(tmp_path / "m.safetensors", num_heads=3)
    config = {"model_args": {"no_embed_class": True, "num_heads": 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not load.read(tmp_path / "m.safetensors").options.class_position


def test_the_image_size_does_not_choose_the_grid_with_another_patch_size(tmp_path):
    """The image size is then for the new patches: 4 x 4 of them, while the file has 2 x 8."""
    original = bare(tmp_path / "m.npz", "vit_jax", activation="gelu_tanh")
    model: Any = vit_jax.load(
        tmp_path / "m.npz", num_heads=3, patch_size=(2, 8), image_size=(8, 32)
    )
    np.testing.assert_array_equal(model.encoder.position[...], original.params["encoder/position"])
    assert model.preprocessing.image_size == (8, 32), "what it is fed follows"
    given: Any = vit_jax.load(tmp_path / "m.npz", num_heads=3, image_size=(8, 32))
    np.testing.assert_array_equal(given.encoder.position[...], original.params["encoder/position"])
    assert given.options.grid == (2, 8)
