"""The vit_jax layout: from the same file, models compute the same as the original code."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import files, layouts, load, surgery
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.npz.vit_jax import LAYOUT
from vit_jax.models import zoo

TOLERANCE = 1e-5  # of the largest value; asked for are 1e-4

forward = jax.jit(lambda model, images: model(images))


@pytest.fixture(scope="module")
def fixtures(shared) -> pathlib.Path:
    return shared / "fixtures"


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("vitjax_cls", "ckpt.npz"),
        ("vitjax_cls", "ckpt_linen_names.npz"),
        ("vitjax_gap_rep", "ckpt.npz"),
        ("vitjax_hybrid_r", "ckpt.npz"),
    ],
)
def test_logits_and_features_equal_the_original(fixtures, folder, file) -> None:
    model, expected = load.load(fixtures / folder / file), np.load(fixtures / folder / "io.npz")
    features, logits = jax.jit(lambda m, x: (m.features(x), m(x)))(model, expected["images"])
    assert_close(features, expected["expected_features"])
    assert_close(logits, expected["expected_logits"])


@pytest.mark.parametrize("folder", ["vitjax_cls", "vitjax_gap_rep"])
def test_loss_and_gradients_equal_the_original(fixtures, folder) -> None:
    model, expected = (
        load.load(fixtures / folder / "ckpt.npz"),
        np.load(fixtures / folder / "io.npz"),
    )
    graphdef, params = nnx.split(model)

    @jax.jit
    def gradients(params, images, labels):
        def loss(params):
            logits = nnx.merge(graphdef, params)(images)
            return optax.softmax_cross_entropy(logits, labels).mean()

        return jax.value_and_grad(loss)(params)

    value, grads = gradients(params, expected["images"], expected["labels_soft"])
    assert value == pytest.approx(expected["expected_loss"], rel=TOLERANCE)
    ours = traverse_util.flatten_dict(nnx.to_pure_dict(grads), sep="/")
    theirs = layouts.table.read(
        LAYOUT.entries(model.options),
        LAYOUT.canonical(files.read_arrays(fixtures / folder / "grads.npz"), Hints()),
        surgery.shapes(model.options),
    )
    assert ours.keys() == theirs.keys()
    for path, grad in theirs.items():
        difference = np.linalg.norm(ours[path] - grad) / np.linalg.norm(grad)
        assert difference < TOLERANCE, path


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (24, "expected_logits_24"),
        (48, "expected_logits_48"),
        (80, "expected_logits_80"),
        ((32, 56), "derived_logits_32x56"),
        ((72, 40), "derived_logits_72x40"),
    ],
)
def test_other_resolutions_equal_the_original(fixtures, size, name) -> None:
    folder = fixtures / "vitjax_posemb_interp"
    expected = np.load(folder / "io.npz")
    model = vit_jax.load(folder / "ckpt.npz", layout="vit_jax", image_size=size, num_heads=3)
    assert model.preprocessing is not None
    assert model.preprocessing.image_size == model.options.image_size
    assert_close(forward(model, expected[name.replace("expected_logits", "images").replace(
        "derived_logits", "images")]), expected[name])  # fmt: skip


@pytest.mark.parametrize("folder", ["vitjax_cls", "vitjax_gap_rep", "vitjax_hybrid_r"])
def test_writing_is_the_inverse_of_reading(fixtures, folder) -> None:
    arrays = LAYOUT.canonical(files.read_arrays(fixtures / folder / "ckpt.npz"), Hints())
    options = LAYOUT.infer(arrays, Hints())
    params = layouts.table.read(LAYOUT.entries(options), arrays, surgery.shapes(options))
    written = layouts.table.write(LAYOUT.entries(options), params)
    assert written.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(written[name], array)


def test_both_kinds_of_block_names_read_the_same(fixtures) -> None:
    names = "ckpt.npz", "ckpt_linen_names.npz"
    one, other = (files.read_arrays(fixtures / "vitjax_cls" / name) for name in names)
    assert one.keys() != other.keys()
    assert LAYOUT.canonical(one, Hints()).keys() == LAYOUT.canonical(other, Hints()).keys()


def manifest_names() -> list[str]:
    """The names of the models in manifests/vit_jax_224_1000.json."""
    plain = ("Ti_16", "S_16", "S_32", "B_8", "B_16", "B_32", "L_16", "L_32", "H_14")
    gap = ("S_16", "S_32", "B_16", "B_32")
    hybrids = ("R+ViT-Ti_16", "R50+ViT-B_16", "R26+ViT-B_32", "R26+ViT-S_32", "R50+ViT-L_32")
    return [*(f"ViT-{p}" for p in plain), *(f"ViT-{g}-gap-norep" for g in gap), *hybrids]


@pytest.mark.parametrize("name", manifest_names())
def test_released_models_are_recognised(fixtures, name) -> None:
    """For names and shapes of all released files; the arrays take no memory."""
    manifest = json.loads((fixtures / "manifests/vit_jax_224_1000.json").read_text())
    assert sorted(manifest) == sorted(manifest_names())
    shapes = manifest[name]["tensors"]
    empty = {n: np.broadcast_to(np.int8(0), s) for n, s in shapes.items()}
    arrays = LAYOUT.canonical(empty, Hints())
    assert LAYOUT.recognises(arrays)
    model = name.replace("ViT-", "").removesuffix("-gap-norep").replace("_", "/")
    pool = "gap" if name.endswith("gap-norep") else "token"
    options = LAYOUT.infer(arrays, Hints())
    assert options == zoo.options(model, pool=pool)
    ours = {p: np.broadcast_to(np.int8(0), s) for p, s in surgery.shapes(options).items()}
    written = layouts.table.write(LAYOUT.entries(options), ours)
    assert {n: a.shape for n, a in written.items()} == {n: a.shape for n, a in arrays.items()}


def test_a_head_for_other_classes_is_zero(fixtures) -> None:
    model = vit_jax.load(fixtures / "vitjax_cls/ckpt.npz", num_classes=3)
    images = np.load(fixtures / "vitjax_cls/io.npz")["images"]
    np.testing.assert_array_equal(forward(model, images), np.zeros((3, 3)))


@pytest.fixture
def changed(fixtures, tmp_path):
    """Returns a function that writes vitjax_cls with changed arrays and returns the path."""

    def write(**changes) -> pathlib.Path:
        arrays: dict[str, Any] = files.read_arrays(fixtures / "vitjax_cls/ckpt.npz")
        for name, array in changes.items():
            arrays.pop(name, None)
            if array is not None:
                arrays[name] = array
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    return write


def test_all_misfits_are_listed_at_once(changed) -> None:
    block = "Transformer/encoderblock_1"
    path = changed(
        **{
            f"{block}/LayerNorm_0/scale": None,
            f"{block}/MlpBlock_3/Dense_0/bias": np.ones(7, np.float32),
            f"{block}/MultiHeadDotProductAttention_1/key/bias": np.ones((4, 12), np.float32),
            "mystery": np.ones((2, 3), np.float32),
        }
    )
    with pytest.raises(ValueError, match=r"x\.npz: 6 misfits: ") as error:
        load.load(path)
    message = str(error.value)
    assert f"missing {block}/LayerNorm_0/scale" in message
    assert f"{block}/MlpBlock_3/Dense_0/bias has shape (7,)" in message
    assert f"{block}/MultiHeadDotProductAttention_1/key/bias has shape (4, 12)" in message
    assert "unexpected mystery (2, 3)" in message
    assert "\n" not in message


def test_a_missing_layer_is_named(changed, fixtures) -> None:
    with np.load(fixtures / "vitjax_cls/ckpt.npz") as file:
        first = {n: None for n in file.files if "encoderblock_0/" in n}
    with pytest.raises(ValueError, match="not a vit_jax checkpoint: missing .*encoderblock_0"):
        load.load(changed(**first), layout="vit_jax")


def test_positions_that_are_not_square_need_their_grid(changed) -> None:
    name = "Transformer/posembed_input/pos_embedding"
    path = changed(**{name: np.ones((1, 1 + 4 * 7, 48), np.float32)})
    with pytest.raises(
        ValueError, match="28 positions are not a square: give the checkpoint's grid"
    ):
        load.load(path)
    with pytest.raises(ValueError, match="grid 5x7 does not fit .* of 28 patches"):
        load.load(path, grid=(5, 7))
    assert load.load(path, grid=(4, 7)).options.image_size == (32, 56)


def test_another_grid_can_be_given_for_a_square_number_of_positions(changed) -> None:
    name = "Transformer/posembed_input/pos_embedding"
    table = np.random.default_rng(0).normal(size=(1, 1 + 36, 48)).astype(np.float32)
    path = changed(**{name: table})
    assert load.load(path).options.image_size == (48, 48)
    model = load.load(path, grid=(4, 9))
    assert model.options.image_size == (32, 72)
    np.testing.assert_array_equal(model.encoder.position[...], table)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_heads": 4}, "num_heads is 4, the checkpoint has 3 heads"),
        ({"layout": "vit_jaxx"}, "unknown layout 'vit_jaxx': choose one of vit_jax"),
        ({"image_size": 30}, "image height 30 is not a multiple of the patch of 8 pixels: use 32"),
        ({"dropuot": 0.1}, "unknown model option 'dropuot': did you mean 'dropout'"),
        ({"mlp_dim": 64}, r"another model: .*fc1/kernel is \(2, 48, 96\)"),
    ],
)
def test_arguments_that_do_not_fit_the_file_are_refused(fixtures, asked, message) -> None:
    with pytest.raises(ValueError, match=message):
        load.load(fixtures / "vitjax_cls/ckpt.npz", **asked)


def test_files_of_an_unknown_layout_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "x.npz", a=np.ones(2), b=np.ones(3))
    with pytest.raises(ValueError, match=r"x\.npz: no known layout has arrays named a, b"):
        load.load(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="not a vit_jax checkpoint: missing or wrong-rank"):
        load.load(tmp_path / "x.npz", layout="vit_jax")
    with pytest.raises(
        ValueError,
        match=r"has no model.json of a run and no model.safetensors",
    ):
        load.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "map"},
        {"position": "learned_2d"},
        {"activation": "gelu_erf"},
        {"norm_eps": 1e-12},
        {"registers": 2},
    ],
)
def test_models_that_the_layout_cannot_hold_are_refused(changes) -> None:
    (name,) = changes
    with pytest.raises(ValueError, match=f"the vit_jax layout cannot hold {name}="):
        LAYOUT.entries(zoo.options("Ti/16", **changes))


def test_real_weights_are_loaded(shared) -> None:
    path = shared / "data/vit_Ti16_in1k.npz"
    if not path.exists():
        pytest.skip(f"no released weights: {path} is absent")
    checkpoint = load.read(path)
    options = zoo.options("Ti/16", image_size=checkpoint.options.image_size)
    assert checkpoint.options == options
    assert sum(a.size for a in checkpoint.params.values()) > 5_700_000
