"""BiT ResNets are read and written in all layouts in which they were released."""

import json
from typing import Any

import jax
import numpy as np
import pytest

from tests.checkpoints.parity import logits_and_features, read
from tests.compare import assert_close
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hf.bit import LAYOUT as hf_bit
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.npz.bit import LAYOUT as bit_npz
from vit_jax.checkpoints.layouts.timm.bit import LAYOUT as timm_bit
from vit_jax.models import zoo


@pytest.fixture
def fixture(shared):
    return shared / "fixtures" / "bv_bit_paper"


def test_matches_the_original_and_round_trips(fixture):
    io = np.load(fixture / "io.npz")
    model = load.load(fixture / "ckpt.npz")
    logits, features = logits_and_features(model, io["images"])
    assert_close(logits, io["expected_logits"])
    assert_close(features, io["expected_pre_logits"])
    assert load.load(fixture / "ckpt.npz", num_classes=3)(io["images"]).shape == (3, 3)
    checkpoint = read(fixture / "ckpt.npz")
    original = dict(np.load(fixture / "ckpt.npz"))
    written = table.write(bit_npz.entries(checkpoint.options), checkpoint.params)
    assert written.keys() == original.keys()
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array)


def test_the_names_of_the_paper_read_the_same(fixture, tmp_path):
    def old(name, array):
        vector = array.reshape(-1)
        parts = name.removeprefix("params/").split("/")
        leaf = {"scale": "gamma", "bias": "beta"}.get(parts[-1])
        if parts[0] == "root_block":
            return "resnet/root_block/standardized_conv2d/kernel", array
        if parts[0] == "norm-pre-head":
            return f"resnet/group_norm/{leaf}", vector
        if parts[0] == "head":
            kernel = parts[1] == "kernel"
            return f"resnet/head/conv2d/{parts[1]}", array[None, None] if kernel else array
        block, unit, part, _ = parts
        if part == "conv_proj":
            return f"resnet/{block}/{unit}/a/proj/standardized_conv2d_7/kernel", array
        letter = "abc"[int(part[-1]) - 1]
        if part.startswith("gn"):
            return f"resnet/{block}/{unit}/{letter}/group_norm/{leaf}", vector
        return f"resnet/{block}/{unit}/{letter}/standardized_conv2d/kernel", array

    arrays = dict(old(*item) for item in np.load(fixture / "ckpt.npz").items())
    np.savez(tmp_path / "BiT-M.npz", **arrays, global_step=np.int64(7))
    found, expected = read(tmp_path / "BiT-M.npz"), read(fixture / "ckpt.npz")
    assert found.options == expected.options
    for path, array in expected.params.items():
        np.testing.assert_array_equal(found.params[path], array)


@pytest.mark.parametrize("name", ["bit R50x1", "bit_paper R50x1", "bit R101x1", "bit_paper R101x1"])
def test_names_and_shapes_of_big_vision_at_full_size(shared, name):
    manifest = json.loads((shared / "fixtures/manifests/big_vision_224_1000.json").read_text())
    options = at_full_size(manifest[name]["tensors"], "big_vision")
    if name.startswith("bit_paper"):
        assert options == zoo.options(name.split()[1])


def test_names_and_shapes_of_timm_at_full_size(shared):
    manifest = json.loads((shared / "fixtures/manifests/timm_1000.json").read_text())
    entry = manifest["resnetv2_50x1_bit"]
    options = at_full_size(entry.get("tensors", entry), "timm")
    published: Any = zoo.options("R50x1")
    assert timm_bit.numerics(published)["stem"] == options.stem


def at_full_size(tensors, layout):
    """The options of a manifest, after checking that they are written with its names."""
    arrays = {k: np.broadcast_to(np.float32(0), shape) for k, shape in tensors.items()}
    found = layouts.find(arrays, "", path="manifest")
    options = found.infer(found.canonical(arrays, Hints()), Hints())
    assert found is layouts.writer(options, layout)
    params = {p: np.broadcast_to(np.float32(0), s) for p, s in surgery.shapes(options).items()}
    written = table.write(found.entries(options), params)
    assert {k: list(v.shape) for k, v in written.items()} == tensors
    return options


@pytest.mark.parametrize("layout", [timm_bit, hf_bit])
def test_torch_layouts_round_trip(fixture, layout):
    checkpoint = read(fixture / "ckpt.npz")
    written = table.write(layout.entries(checkpoint.options), checkpoint.params)
    assert layouts.find(written, "", path="written") is layout
    arrays = layout.canonical(written, Hints())
    options = layout.infer(arrays, Hints())
    assert options.stem.std_eps == 1e-8 and options.stem.pool_padding == "zero"
    found = table.read(layout.entries(options), arrays, surgery.shapes(options))
    for path, array in checkpoint.params.items():
        np.testing.assert_array_equal(found[path], array)


def test_a_backbone_without_head_has_features_only(fixture):
    checkpoint = read(fixture / "ckpt.npz")
    written = table.write(hf_bit.entries(checkpoint.options), checkpoint.params)
    body = {k.removeprefix("bit."): v for k, v in written.items() if k.startswith("bit.")}
    arrays = hf_bit.canonical(body, Hints())
    assert hf_bit.infer(arrays, Hints()).num_classes == 0


def test_an_unsupported_config_is_refused(fixture):
    checkpoint = read(fixture / "ckpt.npz")
    written = table.write(hf_bit.entries(checkpoint.options), checkpoint.params)
    with pytest.raises(ValueError, match="output_stride=8"):
        hf_bit.infer(written, Hints(config={"output_stride": 8}))
    with pytest.raises(ValueError, match="cannot be written in the hf layout"):
        layouts.writer(checkpoint.options, "hf")


def test_a_missing_unit_and_stage_are_named(fixture, tmp_path):
    arrays = dict(np.load(fixture / "ckpt.npz"))
    unit = {k: v for k, v in arrays.items() if "block2/unit01/conv2" not in k}
    stage = {k: v for k, v in arrays.items() if "block1/" not in k}
    for kept, message in (
        (unit, "1 misfits: missing params/block2/unit01/conv2/kernel"),
        (stage, "stages are .2.: some are missing"),
    ):
        np.savez(tmp_path / "part.npz", **kept)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "part.npz")


def test_zoo_models_have_the_published_sizes():
    sizes = {"R50x1": 25.5e6, "R101x3": 387.9e6, "R152x4": 936.5e6}  # with 1000 classes
    for name, published in sizes.items():
        shapes = surgery.shapes(zoo.options(name))
        parameters = sum(int(np.prod(shape)) for shape in shapes.values())
        assert parameters == pytest.approx(published, rel=5e-3)
    images = jax.ShapeDtypeStruct((1, 64, 48, 3), np.float32)
    logits = jax.eval_shape(lambda x: zoo.create("R50x1", num_classes=2)(x), images)
    assert logits.shape == (1, 2)
