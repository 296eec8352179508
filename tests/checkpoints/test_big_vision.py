"""big_vision's ViT files of all versions and prefixes give the outputs of the original code."""

import json
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from tests.checkpoints.parity import logits_and_features, read
from tests.compare import assert_close
from vit_jax.checkpoints import load, surgery
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.npz.big_vision import LAYOUT as big_vision
from vit_jax.models import zoo
from vit_jax.models.classifier import ViTOptions


@pytest.mark.parametrize("name", ["bv_vit_gap", "bv_vit_map", "bv_vit_tok_scan"])
def test_matches_the_original_and_round_trips(shared, name):
    folder = shared / "fixtures" / name
    io = np.load(folder / "io.npz")
    logits, features = logits_and_features(load.load(folder / "ckpt.npz"), io["images"])
    assert_close(logits, io["expected_logits"])
    assert_close(features, io["expected_pre_logits"])
    checkpoint = read(folder / "ckpt.npz")
    written = table.write(big_vision.entries(checkpoint.options), checkpoint.params)
    original = big_vision.canonical(np.load(folder / "ckpt.npz"), Hints())
    assert written.keys() == original.keys()
    for key, array in original.items():
        np.testing.assert_array_equal(written[key], array)


def test_gradients_match_the_original(shared):
    folder = shared / "fixtures" / "bv_vit_gap"
    io = np.load(folder / "io.npz")
    checkpoint = read(folder / "ckpt.npz")
    gradients = read(folder / "grads.npz").params
    graphdef, params = nnx.split(load.assemble(checkpoint.options, checkpoint.params))

    def loss(params):
        logits = nnx.merge(graphdef, params)(io["images"])
        return -(io["labels_soft"] * jax.nn.log_softmax(logits)).sum(-1).mean()

    value, ours = jax.jit(jax.value_and_grad(loss))(params)
    assert_close(value, io["expected_loss"])
    ours = table.write(big_vision.entries(checkpoint.options), _flat(ours))
    theirs = table.write(big_vision.entries(checkpoint.options), gradients)
    for key, array in theirs.items():
        # The gradient of a key's bias is zero but for rounding.
        assert_close(ours[key], array, atol=2e-5 * np.abs(array).max() + 1e-7)


def _flat(state):
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(v) for p, v in leaves}


@pytest.mark.parametrize("size", [24, 48, 80])
def test_resizes_positions_as_the_original(shared, size):
    folder = shared / "fixtures" / "bv_posemb_interp"
    io = np.load(folder / "io.npz")
    model = load.load(folder / "ckpt.npz", image_size=size)
    assert_close(model(io[f"images_{size}"]), io[f"expected_logits_{size}"])


@pytest.mark.parametrize("size", [24, 48, 80])
def test_reads_a_vit_jax_file_as_the_original_does(shared, size):
    folder = shared / "fixtures" / "bv_posemb_interp"
    io = np.load(folder / "io.npz")
    model: Any = load.load(folder / "ckpt_vitjax_cls.npz", image_size=size, layout="big_vision")
    assert_close(model.encoder.position[...], io[f"vitjax_expected_posemb_{size}"])
    assert_close(model(io[f"vitjax_images_{size}"]), io[f"vitjax_expected_logits_{size}"])


def test_a_vit_jax_file_stays_one_unless_the_layout_is_named(shared):
    checkpoint = read(shared / "fixtures" / "bv_posemb_interp" / "ckpt_vitjax_cls.npz")
    assert checkpoint.options.class_position


@pytest.fixture
def modern(shared):
    """Arrays of a model with a class token and of one with attention pooling, without prefix."""
    found = []
    for name in ("bv_vit_tok_scan", "bv_vit_map"):
        arrays = np.load(shared / "fixtures" / name / "ckpt.npz")
        found.append({k.removeprefix("params/"): arrays[k] for k in arrays.files})
    return found


def as_read(tmp_path, arrays, **how):
    np.savez(tmp_path / "file.npz", **arrays)
    return read(tmp_path / "file.npz", **how)


def same(a, b):
    assert a.options == b.options
    assert a.params.keys() == b.params.keys()
    for path in a.params:
        np.testing.assert_array_equal(a.params[path], b.params[path])


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/", "img/", "params/img/"])
def test_every_prefix_reads_the_same(modern, tmp_path, prefix):
    other = {"opt/state/step": np.zeros(1), "params/txt/head/bias": np.zeros(3), "params/t": 1.0}
    other = {} if prefix in ("", "img/") else other
    if prefix in ("params/", "opt/target/"):
        other = {"opt/state/step": np.zeros(1)}
    expected = as_read(tmp_path, modern[0])
    same(as_read(tmp_path, {prefix + k: v for k, v in modern[0].items()} | other), expected)


def test_bfloat16_is_read_from_two_byte_voids(modern, tmp_path):
    half = {k: v.astype(ml_dtypes.bfloat16) for k, v in modern[0].items()}
    expected = as_read(tmp_path, {k: v.astype(np.float32) for k, v in half.items()})
    same(as_read(tmp_path, {k: v.view("V2") for k, v in half.items()}), expected)


def test_old_positions_in_the_encoder_with_a_row_of_the_class_token(modern, tmp_path):
    arrays, _ = modern
    expected = as_read(tmp_path, arrays)
    row = np.full_like(arrays["cls"], 0.25)
    old = arrays | {"cls": arrays["cls"] - row}
    positions = np.concatenate([row, old.pop("pos_embedding")], axis=1)
    for name in ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding"):
        found = as_read(tmp_path, old | {name: positions}, layout="big_vision")
        assert_close(found.params["encoder/cls"], expected.params["encoder/cls"], atol=1e-7)
        found.params["encoder/cls"] = expected.params["encoder/cls"]
        same(found, expected)


def test_pre_linen_names_and_a_pooling_at_the_root(modern, tmp_path):
    _, arrays = modern
    expected = as_read(tmp_path, arrays)
    renames = {
        "MAPHead_0/LayerNorm_0": "LayerNorm_1",
        "MAPHead_0/MlpBlock_0": "MlpBlock_2",
        "MAPHead_0/": "",
        "/LayerNorm_1": "/LayerNorm_2",
        "/MultiHeadDotProductAttention_0": "/MultiHeadDotProductAttention_1",
        "/MlpBlock_0": "/MlpBlock_3",
    }

    def old(name):
        for new, before in renames.items():
            if name.startswith("Transformer") != new.startswith("MAPHead"):
                name = name.replace(new, before)
        return name

    before = {old(k): v for k, v in arrays.items()}
    same(as_read(tmp_path, before), expected)
    del before["pos_embedding"]
    with pytest.raises(ValueError, match="missing Transformer/posembed_input/pos_embedding"):
        as_read(tmp_path, before)


def test_a_grid_that_is_not_square_keeps_its_first_position(modern, tmp_path):
    _, arrays = modern
    positions = arrays["pos_embedding"][:, :10]  # 2 x 5, and 3 * 3 + 1
    found = as_read(tmp_path, arrays | {"pos_embedding": positions}, grid=(2, 5))
    assert found.options.image_size == (16, 40)
    np.testing.assert_array_equal(found.params["encoder/position"], positions)


def test_a_file_without_positions_has_fixed_positions(modern, tmp_path):
    _, arrays = modern
    del arrays["pos_embedding"]
    found = as_read(tmp_path, arrays)
    assert found.options.position == "sincos2d"
    assert load.load(tmp_path / "file.npz", image_size=(16, 40)).options.grid == (2, 5)


def test_names_and_shapes_at_full_size(shared):
    manifest = json.loads((shared / "fixtures/manifests/big_vision_224_1000.json").read_text())
    vits = {k: v["tensors"] for k, v in manifest.items() if not k.startswith("bit")}
    assert len(vits) == 14
    for name, tensors in vits.items():
        zero = np.float32(0)
        arrays = {k: np.broadcast_to(zero, shape) for k, shape in tensors.items()}
        options = big_vision.infer(big_vision.canonical(arrays, Hints()), Hints())
        size, pool = name.split()
        published = zoo.options(
            size,
            pool=pool.replace("tok", "token"),
            class_position=pool != "tok",
        )
        assert options == published
        # One array after the other, in bytes: together the largest model has 7 GB.
        shapes, written = surgery.shapes(options), {}
        for entry in big_vision.entries(options):
            params = {entry.path: np.broadcast_to(np.int8(0), shapes[entry.path])}
            written |= {k: list(v.shape) for k, v in table.write([entry], params).items()}
        assert written == tensors


def test_models_that_the_layout_cannot_hold_are_refused():
    for change in ({"activation": "gelu_erf"}, {"norm_eps": 1e-12}, {"position": "none"}):
        with pytest.raises(ValueError, match="layout cannot hold"):
            big_vision.entries(zoo.change(ViTOptions(), **change))
