"""Variants of Hugging Face's models that a config can specify, beyond the released models."""

import json
from typing import Any

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts import swin
from vit_jax.checkpoints.layouts.hf import swin as hf_swin
from vit_jax.checkpoints.layouts.hf.layout import LAYOUT as hf
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.models import zoo
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.interpolation import matrix
from vit_jax.models.swin import SwinOptions

SMALL: dict[str, Any] = {
    "image_size": (16, 16),
    "patch_size": (8, 8),
    "width": 24,
    "depth": 2,
    "mlp_dim": 16,
    "num_heads": 12,
    "num_classes": 3,
    "activation": "gelu_erf",
    "norm_eps": 1e-12,
}
BEIT: dict[str, Any] = {
    "class_token": True,
    "key_bias": False,
    "layer_scale": 0.1,
    "position": "none",
    "pool": "gap",
    "norm_at": "pooled",
}
DECODER = DecoderOptions(width=8, depth=1, mlp_dim=8, num_heads=2)
TABLE = "relative_position_bias.relative_position_bias_table"


def test_missing_heads_in_a_config_have_transformers_default(tmp_path):
    arrays = write(tmp_path, ViTOptions(**SMALL), {"model_type": "vit", "hidden_size": 24})
    assert read(tmp_path).options.num_heads == 12
    save(tmp_path, arrays, {"hidden_size": 24})  # of no family that says so
    with pytest.raises(ValueError, match="give num_heads"):
        load.read(tmp_path)


def test_a_nested_vision_config_is_read(tmp_path):
    options = ViTOptions(**SMALL | {"pool": "map", "num_classes": 0, "activation": "gelu_tanh"})
    inner = {"model_type": "siglip_vision_model", "hidden_act": "gelu", "layer_norm_eps": 1e-3}
    arrays = write(tmp_path, options, {"model_type": "siglip", "vision_config": inner})
    save(tmp_path, arrays | {"logit_scale": np.ones(1, np.float32)}, None)
    found = read(tmp_path).options
    assert (found.activation, found.norm_eps, found.num_heads) == ("gelu_erf", 1e-3, 12)


def test_shared_and_per_block_relative_biases_are_added(tmp_path):
    options = ViTOptions(**SMALL | BEIT | {"relative_bias": "per_block"})
    config = {"model_type": "beit", "use_relative_position_bias": True}
    config |= {"use_shared_relative_position_bias": True}
    arrays = write(tmp_path, options, config)
    shared = np.random.default_rng(1).normal(size=(12, 12)).astype(np.float32)
    save(tmp_path, arrays | {f"beit.encoder.{TABLE}": shared}, config)
    found = read(tmp_path)
    assert found.options.relative_bias == "per_block"
    own = arrays[f"beit.encoder.layer.1.attention.attention.{TABLE}"]
    np.testing.assert_array_equal(
        found.params["encoder/blocks/attention/relative_bias"][1], own + shared
    )


def test_a_window_that_is_not_square_is_read_as_transformers_uses_it(tmp_path):
    square = ViTOptions(**SMALL | BEIT | {"relative_bias": "shared", "depth": 1})
    arrays = write(tmp_path, square, None)
    table = np.arange(6 * 12, dtype=np.float32).reshape(6, 12)
    config = {"model_type": "beit", "image_size": [8, 16]}
    save(tmp_path, arrays | {f"beit.encoder.{TABLE}": table}, config)
    found = read(tmp_path)
    assert found.options.grid == (1, 2)
    # Its 1 x 3 offsets are taken for 3 x 1, of which the middle one becomes all three.
    middle = np.repeat(table[1:2], 3, axis=0)
    assert_close(found.params["encoder/relative_bias"][:3], middle, rtol=1e-7)
    np.testing.assert_array_equal(found.params["encoder/relative_bias"][3:], table[3:])


def test_beit_may_have_no_positions_if_its_config_says_so(tmp_path):
    options = ViTOptions(**SMALL | BEIT)
    arrays = write(tmp_path, options, {"model_type": "beit", "image_size": 16})
    found = read(tmp_path)
    assert (found.options.position, found.options.relative_bias) == ("none", "none")
    save(tmp_path, arrays, {"image_size": 16, "num_attention_heads": 12})
    with pytest.raises(ValueError, match="it has no positions"):
        load.read(tmp_path)


def test_beit_with_a_token_pool_predicts_visual_tokens_after_a_second_norm(tmp_path):
    changes = {"pool": "token", "norm_at": "tokens", "num_classes": 0, "mim_classes": 5}
    options = zoo.of_parts(**SMALL | BEIT | changes | {"relative_bias": "shared", "mim_norm": True})
    model = load.assemble(options, random_params(options))
    vit_jax.save(model, tmp_path / "m", layout="hf")
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["use_mean_pooling"] is False
    again: Any = vit_jax.load(tmp_path / "m")
    assert again.options.mim_norm
    images = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    once = model.mim_head(model.encode(images))[:, 1:]
    ours = again.patch_logits(images)
    np.testing.assert_array_equal(ours, model.patch_logits(images))
    assert np.abs(ours - once).max() > 0.1


def test_edge_pixels_that_do_not_fill_a_patch_are_ignored(tmp_path):
    options = ViTOptions(**SMALL)
    write(tmp_path, options, {"model_type": "vit", "image_size": 19})
    model: Any = vit_jax.load(tmp_path)
    assert model.options.image_size == model.preprocessing.image_size == (19, 19)
    images = np.random.default_rng(0).normal(size=(1, 19, 19, 3)).astype(np.float32)
    whole: Any = vit_jax.load(tmp_path, image_size=16)
    assert_close(model(images), whole(images[:, :16, :16]), atol=1e-5)
    vit_jax.save(model, tmp_path / "again", layout="hf")
    assert read(tmp_path / "again").options == model.options


def test_arrays_that_a_classifier_does_not_use_are_left_out(tmp_path):
    options = ViTOptions(**SMALL)
    arrays = write(tmp_path, options, {"model_type": "vit"})
    pooler = {"weight": np.ones((24, 24), np.float32), "bias": np.ones(24, np.float32)}
    save(tmp_path, arrays | {f"vit.pooler.dense.{k}": v for k, v in pooler.items()}, None)
    assert read(tmp_path).options.representation_size == 0
    layered = ViTOptions(**SMALL | {"representation_size": 24})
    model = load.assemble(layered, random_params(layered))
    with pytest.raises(ValueError, match="classifiers have no representation layer"):
        vit_jax.save(model, tmp_path / "m", layout="hf")


@pytest.mark.parametrize(
    ("config", "extra", "message"),
    [
        ({"model_type": "vit", "pooler_act": "relu"}, {}, "pooler_act 'relu': only 'tanh'"),
        ({"model_type": "vit", "hidden_act": "relu"}, {}, "hidden_act 'relu'"),
        ({"model_type": "vit", "hidden_size": 32}, {}, "config.json is for another model"),
        (
            {"model_type": "llama"},
            {},
            "config.json is for a llama, but the arrays are those of a vit",
        ),
        ({"num_attention_heads": "12"}, {}, "num_attention_heads '12', which must be a positive"),
        ({"image_size": [16]}, {}, "image_size .16., which must be a positive whole number or two"),
        ({"layer_norm_eps": None, "id2label": []}, {}, "id2label .., which must be an object"),
        ({"model_type": "vit"}, {"decoder.0.weight": (192, 24, 1, 1)}, "masked image modeling"),
    ],
)
def test_unsupported_models_are_refused_by_name(tmp_path, config, extra, message):
    options = ViTOptions(**SMALL | {"num_classes": 0, "representation_size": 24})
    arrays = write(tmp_path, options, None)
    save(tmp_path, arrays | {k: np.ones(s, np.float32) for k, s in extra.items()}, config)
    with pytest.raises(ValueError, match=message) as error:
        load.read(tmp_path)
    assert "\n" not in str(error.value)


def test_mae_without_biases_and_its_decoder_at_another_size(tmp_path):
    options = zoo.of_parts(
        **SMALL | {"num_classes": 0, "fixed_position": True, "qkv_bias": False, "decoder": DECODER}
    )
    model = load.assemble(options, random_params(options))
    assert model.decoder.blocks.attention.qkv.bias is None
    vit_jax.save(model, tmp_path / "m", layout="hf")
    again: Any = vit_jax.load(tmp_path / "m", image_size=(24, 16))
    table = np.asarray(model.decoder.position[...])
    # transformers resizes its patches as one row of 4, not as a grid of 2 x 2.
    expected = np.einsum("ij,bjd->bid", matrix(4, 6, "bicubic"), table[:, 1:])
    assert_close(again.decoder.position[:, 1:], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("dinov2", {"layer_scale": 1.0, "num_classes": 0, "norm_eps": 1e-6}),
        ("beit", BEIT | {"position": "learned_1d"}),
    ],
)
def test_positions_that_transformers_always_resizes_come_from_a_square_grid(
    tmp_path, family, fields
):
    arrays = write(tmp_path, ViTOptions(**SMALL | fields | {"image_size": (16, 16)}), None)
    save(tmp_path, arrays, {"model_type": family, "image_size": [8, 32]})
    table = arrays[f"{family}.embeddings.position_embeddings"]
    rows, columns = matrix(2, 1, "bicubic"), matrix(2, 4, "bicubic")
    grid = table[0, 1:].reshape(2, 2, -1)
    expected = np.einsum("ih,jw,hwd->ijd", rows, columns, grid).reshape(4, -1)
    assert_close(read(tmp_path).params["encoder/position"][0, 1:], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (BEIT | {"position": "learned_1d", "image_size": (8, 32)}, "absolute positions of a grid"),
        (BEIT | {"relative_bias": "shared", "image_size": (8, 16)}, "biases of a grid of 1x2"),
        (
            {"num_classes": 0, "fixed_position": True, "decoder": DECODER, "image_size": (8, 32)},
            "masked autoencoder of a grid of 1x4 patches: give a square image_size",
        ),
        (BEIT | {"relative_bias": "shared", "norm_at": "tokens"}, "pool='gap' with norm_at='tok"),
        (BEIT | {"relative_bias": "shared", "pool": "token"}, "pool='token' with norm_at='pooled'"),
    ],
)
def test_models_that_transformers_would_compute_differently_are_not_written(
    tmp_path, changes, message
):
    options = zoo.of_parts(**SMALL | {"depth": 1} | changes)
    with pytest.raises(ValueError, match=message):
        vit_jax.save(load.assemble(options, random_params(options)), tmp_path / "m", layout="hf")
    assert not (tmp_path / "m").exists()


def test_a_swin_with_positions_has_a_fixed_image_size(tmp_path):
    options = SwinOptions(
        image_size=(32, 32),
        width=8,
        depths=(1, 1),
        num_heads=(2, 2),
        windows=((4, 4),),
        num_classes=3,
        padding="before_shift",
        position="learned_1d",
    )
    arrays = layouts.table.write(swin.entries(options, hf_swin._SPELLING), random_params(options))
    save(tmp_path, arrays, {"model_type": "swin", "image_size": 32})
    model: Any = vit_jax.load(tmp_path)
    assert model.options.position == "learned_1d"
    null = {"model_type": "swin", "image_size": 32, "layer_norm_eps": None}
    assert hf_swin.LAYOUT.infer(arrays, Hints(config=null)) == model.options
    images = np.ones((1, 32, 48, 3), np.float32)
    with pytest.raises(ValueError, match="images have 8x12 patches, .* are for 8x8: load it with"):
        model(images)
    table = arrays["swin.embeddings.position_embeddings"][0].reshape(8, 8, -1)
    wider: Any = vit_jax.load(tmp_path, image_size=(32, 48))
    expected = np.einsum("jw,hwd->hjd", matrix(8, 12, "bicubic"), table).reshape(96, -1)
    assert_close(wider.position[0], expected, atol=1e-5)
    zeros = {**arrays, "swin.embeddings.position_embeddings": 0 * arrays[
        "swin.embeddings.position_embeddings"]}  # fmt: skip
    save(tmp_path, zeros, {"model_type": "swin", "image_size": 32})
    placed = np.abs(vit_jax.load(tmp_path)(images[:, :, :32]) - model(images[:, :, :32]))
    assert placed.max() > 1e-3


def write(folder, options, config):
    """Writes a Hugging Face folder with random arrays; returns these by name."""
    arrays = layouts.table.write(hf.entries(options), random_params(options))
    save(folder, arrays, config)
    return arrays


def save(folder, arrays, config):
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors_numpy.save_file(arrays, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def read(folder) -> Any:
    return load.read(folder)


def random_params(options):
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
