"""Hugging Face's folders, with old and new names, give the outputs of the original code."""

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints import parity
from tests.compare import assert_close
from vit_jax.checkpoints import files, layouts, load, surgery
from vit_jax.checkpoints.layouts.hf import entries, names
from vit_jax.checkpoints.layouts.hf.layout import LAYOUT as hf
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.decoder import DecoderOptions

TINY = ViTOptions(
    image_size=(16, 24),
    patch_size=(8, 8),
    width=24,
    depth=2,
    mlp_dim=32,
    num_heads=3,
    num_classes=5,
    activation="gelu_erf",
    norm_eps=1e-12,
)
BEIT = {
    "image_size": (16, 16),  # transformers does not keep the tables of other grids
    "class_token": True,
    "key_bias": False,
    "layer_scale": 0.1,
    "position": "none",
    "relative_bias": "shared",
}
WRITTEN = {
    "vit": {},
    "tanh": {"activation": "gelu_tanh", "norm_eps": 1e-6, "qkv_bias": False},
    "pooler": {"num_classes": 0, "representation_size": 24},
    "deit": {"distillation": True},
    "beit": BEIT | {"pool": "gap", "norm_at": "pooled", "relative_bias": "per_block"},
    "beit class token": BEIT | {"position": "learned_1d"},
    "beit mim": BEIT | {"num_classes": 0, "mim_classes": 11, "mask_token": True},
    "mae": {
        "image_size": (16, 16),  # transformers compares only square images
        "num_classes": 0,
        "fixed_position": True,
        "decoder": DecoderOptions(width=16, depth=1, mlp_dim=20, num_heads=2),
    },
}
READ = {
    "dinov2": {"layer_scale": 1.0, "mask_token": True, "num_classes": 0},
    "dinov2 giant": {"layer_scale": 1.0, "mlp": "swiglu", "pool": "token_gap"},
    "dinov2 registers": {"layer_scale": 1.0, "registers": 3, "num_classes": 0},
    "siglip": {"pool": "map", "num_classes": 0, "activation": "gelu_tanh"},
}


def test_vit_gives_logits_tokens_and_gradients(shared):
    folder = shared / "fixtures/hf_vit"
    io = np.load(folder / "io.npz")
    model = load_vit(folder)
    assert_close(apply(model, io["images"]), io["expected_logits"])
    assert_close(model.encode(io["images"]), io["expected_last_hidden"])

    def loss(model):
        logits = model(io["images"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, io["labels"]).mean()

    value, gradients = nnx.jit(nnx.value_and_grad(loss))(model)
    assert_close(value, io["grad_loss"])
    check_gradients(model, gradients, folder)


def test_positions_are_resized_to_any_grid(shared):
    folder = shared / "fixtures/hf_posemb_interp"
    io = np.load(folder / "io.npz")
    for name in io.files:
        if name.startswith("images_"):
            size = name.removeprefix("images_")
            height, width = map(int, size.split("x"))
            model = load_vit(folder, image_size=(height, width))
            assert_close(model.encoder.position[...], io[f"expected_posemb_{size}"], atol=3e-6)
            assert_close(model(io[name]), io[f"expected_logits_{size}"])


def test_beit_predicts_visual_tokens(shared):
    folder = shared / "fixtures/hf_beit_mim"
    io = np.load(folder / "io.npz")
    model = load_vit(folder)

    def loss(model):
        logits = model.patch_logits(io["images"], mask=io["mask"])
        entropy = optax.softmax_cross_entropy_with_integer_labels(
            logits[io["mask"]], io["masked_labels"]
        )
        return entropy.mean(), logits

    (value, logits), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    assert_close(logits, io["expected_logits"])
    assert_close(value, io["expected_loss"])
    check_gradients(model, gradients, folder)


def test_mae_reconstructs_with_the_positions_of_the_file(shared):
    folder = shared / "fixtures/hf_vitmae_normpix"
    io = np.load(folder / "io.npz")
    model = load_vit(folder)
    prediction, mask = model.reconstruct(io["images"], noise=io["noise"], mask_ratio=0.75)[:2]
    assert_close(prediction, io["expected_pred"])
    np.testing.assert_array_equal(mask, io["expected_mask"])


def test_vit_hybrid_gives_the_logits_of_transformers(shared):
    folder = shared / "fixtures/hf_vit_hybrid"
    io = np.load(folder / "io.npz")
    assert_close(apply(load_vit(folder), io["images"]), io["expected_logits"])


def test_sharded_half_precision_and_torch_files_are_the_same_model(shared, tmp_path):
    source = shared / "fixtures/hf_vit"
    arrays = files.read_arrays(source / "model.safetensors")
    half = {k: v.astype(np.float16) for k, v in arrays.items()}
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    shards = {name: f"model-0000{1 + i % 2}.safetensors" for i, name in enumerate(sorted(half))}
    for shard in set(shards.values()):
        part = {name: half[name] for name in half if shards[name] == shard}
        safetensors_numpy.save_file(part, tmp_path / shard)
    index = {"metadata": {}, "weight_map": shards}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    images = np.load(source / "io.npz")["images"]
    whole, sharded = load_vit(source), load_vit(tmp_path)
    assert_close(sharded(images), whole(images), atol=2e-2)


@pytest.mark.parametrize("changes", WRITTEN.values(), ids=list(WRITTEN))
def test_written_folders_read_back_equal(tmp_path, changes):
    options = parity.changed(TINY, **changes)
    params = random_params(options)
    model = load.assemble(options, params)
    vit_jax.save(model, tmp_path / "m", layout="hf")
    again = load.read(tmp_path / "m")
    assert effective(again.options) == effective(options)
    assert set(again.params) == set(params)
    for path, array in params.items():
        np.testing.assert_array_equal(again.params[path], zero_key_bias(path, array, options))


@pytest.mark.parametrize("changes", {**WRITTEN, **READ}.values(), ids=[*WRITTEN, *READ])
def test_names_of_newer_releases_are_the_same_model(changes):
    options = parity.changed(TINY, **changes)
    if entries.family(options) in ("dinov2", "dinov2_with_registers", "siglip"):
        options = dataclasses.replace(options, norm_eps=1e-6)
    params = random_params(options)
    arrays = layouts.table.write(hf.entries(options), params)
    config = {
        "image_size": list(options.image_size),
        "num_attention_heads": 3,
        "layer_norm_eps": options.norm_eps,
    }
    config |= {"decoder_num_attention_heads": 2, "layer_scale_init_value": options.layer_scale}
    config |= {"hidden_act": "gelu" if options.activation == "gelu_erf" else "gelu_new"}
    config |= {"model_type": "vit_mae"} if options.decoder else {}
    for spelling in (arrays, in_memory(arrays), bare(arrays)):
        hints = Hints(config=config)
        canonical = hf.canonical(spelling, hints)
        inferred = hf.infer(canonical, hints)
        assert effective(inferred) == effective(options)
        read = layouts.table.read(hf.entries(inferred), canonical, surgery.shapes(inferred))
        for path, array in params.items():
            np.testing.assert_array_equal(read[path], zero_key_bias(path, array, options))


def test_full_size_models_have_the_released_names_and_shapes(shared):
    manifest = json.loads((shared / "fixtures/manifests/hf_on_disk_1000.json").read_text())
    assert len(manifest) == 7
    for name, entry in manifest.items():
        arrays = {
            key: np.broadcast_to(np.float32(0), shape) for key, shape in entry["tensors"].items()
        }
        assert hf.recognises(arrays), name
        canonical = hf.canonical(arrays, Hints())
        options = hf.infer(canonical, Hints())
        expected = surgery.shapes(options)
        written = layouts.table.write(
            hf.entries(options),
            {path: np.broadcast_to(np.float32(0), shape) for path, shape in expected.items()},
        )
        shapes = {key: tuple(array.shape) for key, array in written.items()}
        assert shapes == {key: tuple(array.shape) for key, array in canonical.items()}, name
        assert options.width == 768 and options.depth == 12 and options.num_heads == 12


def test_preprocessing_and_class_names_are_read_from_the_folder(shared, tmp_path):
    model = load_vit(shared / "fixtures/hf_vit")
    model.class_names = tuple("abcdefg")
    model.preprocessing = dataclasses.replace(
        model.preprocessing, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=0.8
    )
    vit_jax.save(model, tmp_path / "m", layout="hf")
    again = load_vit(tmp_path / "m")
    assert again.class_names == tuple("abcdefg")
    assert again.preprocessing == model.preprocessing


def test_heads_are_never_guessed(shared, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(
        (shared / "fixtures/hf_vit/model.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="no known model has width 48: give num_heads"):
        load_vit(tmp_path)
    assert load_vit(tmp_path, num_heads=3).options.num_heads == 3


def check_gradients(model, gradients, folder):
    """Compares gradients, given by the names of parameters in memory. Fixed positions have none."""
    theirs = hf.canonical(files.read_arrays(folder / "grads_live_names.safetensors"), Hints())
    options = model.options
    expected = layouts.table.read(hf.entries(options), theirs, surgery.shapes(options))
    ours = traverse_util.flatten_dict(nnx.to_pure_dict(gradients), sep="/")
    for path, array in expected.items():
        array = zero_key_bias(path, array, options)
        gradient = zero_key_bias(path, np.asarray(ours[path]), options)
        assert_close(gradient, array, scaled=1e-4, floor=1e-3, about=path)


def in_memory(arrays):
    """The arrays with the names of parameters in memory in transformers 5.x."""
    out = {}
    for name, array in arrays.items():
        name = re.sub(r"^((?:vit|deit|beit)\.)encoder\.layer\.", r"\1layers.", name)
        name = name.replace("encoder.relative_position_bias", "shared_position_bias")
        name = name.replace("attention.attention.relative_position_bias", "relative_position_bias")
        for old, new in (("query", "q"), ("key", "k"), ("value", "v")):
            name = name.replace(f"attention.attention.{old}", f"attention.{new}_proj")
        if ".mlp.weights_in." in name:
            gate, up = np.split(array, 2)
            out[name.replace("weights_in", "gate_proj")] = gate
            out[name.replace("weights_in", "up_proj")] = up
            continue
        name = name.replace("attention.output.dense", "attention.o_proj")
        name = name.replace("intermediate.dense", "mlp.fc1").replace("output.dense", "mlp.fc2")
        out[name.replace(".mlp.weights_out.", ".mlp.down_proj.")] = array
    return out


def bare(arrays):
    """The arrays with the names of a body that is saved without a head."""
    kind = names.family(arrays)
    if any(not name.startswith(names.BODIES[kind]) for name in arrays):
        return arrays
    return {name.removeprefix(names.BODIES[kind]): array for name, array in arrays.items()}


def effective(options):
    """The options with equivalent values made equal."""
    return dataclasses.replace(
        options,
        class_token=options.has_class_token,
        class_position=options.class_position or options.position == "none",
    )


def zero_key_bias(path, array, options):
    if not path.endswith("attention/qkv/bias") or options.key_bias:
        return array
    return array * np.array([1, 0, 1], array.dtype)[:, None, None]


def random_params(options):
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def apply(model, images):
    return jax.jit(lambda model, x: model(x))(model, jnp.asarray(images))


def load_vit(path, **changes: Any) -> Any:
    """A model, typed as Any because each test knows its type."""
    return vit_jax.load(path, **changes)
