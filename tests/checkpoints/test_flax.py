"""Models of transformers' Flax classes are read from their files; damaged files are refused."""

import dataclasses
import json
import tracemalloc
from typing import Any

import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints import parity
from tests.checkpoints.parity import TINY
from tests.compare import assert_close
from vit_jax.checkpoints import files, load, msgpack_file, save, surgery
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hf.layout import LAYOUT as hf
from vit_jax.models import positions

BEIT = {"activation": "gelu_erf", "position": "none", "class_token": True, "key_bias": False,
        "layer_scale": 0.1, "norm_eps": 1e-12}  # fmt: skip
CLIP = {"input_norm": True, "patch_bias": False, "norm_at": "pooled", "activation": "gelu_quick",
        "norm_eps": 1e-5}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"norm_eps": 1e-12},
    "vit-pooler": {"num_classes": 0, "representation_size": 24, "norm_eps": 1e-12},
    "beit": BEIT | {"pool": "gap", "norm_at": "pooled", "relative_bias": "per_block"},
    "beit-shared": BEIT | {"relative_bias": "shared", "num_classes": 0, "mim_classes": 7,
                           "mask_token": True},
    "beit-absolute": BEIT | {"position": "learned_1d", "layer_scale": 0.0, "pool": "gap",
                             "norm_at": "pooled"},
    "dinov2": {"pool": "token_gap", "layer_scale": 1.0, "mask_token": True},
    "clip_vision_model": CLIP | {"num_classes": 0},
    "clip": CLIP,
}  # fmt: skip


def made(kind):
    """Options, parameters, arrays with PyTorch's names, and config.json."""
    options = parity.changed(TINY, **MODELS[kind])
    rng = np.random.default_rng(0)
    params = {
        path: rng.normal(0, 0.2, shape).astype(np.float32)
        for path, shape in surgery.shapes(options).items()
    }
    if not options.key_bias:
        params["encoder/blocks/attention/qkv/bias"][:, 1] = 0
    if options.input_norm and options.num_classes:
        params["head/bias"][:] = 0  # CLIP's projection has none
    arrays = table.write(hf.entries(options), params)
    arrays.pop("visual_projection.bias", None)
    config = {
        "model_type": kind.split("-")[0],
        "hidden_size": options.width,
        "num_attention_heads": options.num_heads,
        "hidden_act": {"gelu_erf": "gelu", "gelu_quick": "quick_gelu"}[options.activation],
        "layer_norm_eps": options.norm_eps,
        "image_size": options.image_size[0],
        "patch_size": options.patch_size[0],
    }
    return options, params, arrays, {"vision_config": config, **config}


def flax_names(arrays):
    """The same arrays with Flax's names and axes."""
    out = {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            if "position_embedding." in name:
                leaf = "embedding"
        if leaf == "kernel":
            array = array.transpose((1, 0) if array.ndim == 2 else (2, 3, 1, 0))
        out[f"{layer}.{leaf}" if layer else leaf] = array
    return out


def write(folder, arrays, config):
    folder.mkdir()
    tree = traverse_util.unflatten_dict(flax_names(arrays), sep=".")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def check(folder, options, params):
    read = load.read(folder)
    assert read.layout == "hf"
    assert dataclasses.asdict(read.options) == dataclasses.asdict(options)
    assert read.params.keys() == params.keys()
    for path, array in params.items():
        np.testing.assert_array_equal(read.params[path], array)
    return read


@pytest.mark.parametrize("name", ["flax_vit", "flax_dinov2"])
def test_logits_are_those_of_transformers(shared, name):
    folder = shared / "fixtures" / name
    io = np.load(folder / "io.npz")
    model: Any = vit_jax.load(folder)
    assert_close(model(io["images"]), io["expected_logits"])


@pytest.mark.parametrize("kind", MODELS)
def test_models_of_flax_are_those_of_pytorch(tmp_path, kind):
    options, params, arrays, config = made(kind)
    read = check(write(tmp_path / "flax", arrays, config), options, params)
    resized = "keys_offset" if kind == "dinov2" else "bicubic"
    assert (read.resize.position, read.resize.patch) == (resized, "bicubic_antialias")
    notes = "\n".join(read.notes)
    assert ("visual_projection is read as the head" in notes) == (kind == "clip")

    torch = tmp_path / "torch"
    torch.mkdir()
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    safetensors_numpy.save_file(contiguous, torch / "model.safetensors")
    (torch / "config.json").write_text(json.dumps(config))
    check(torch, options, params)


def test_assumptions_without_a_config_are_noted(tmp_path):
    _, _, arrays, config = made("clip")
    folder = write(tmp_path / "flax", arrays, config)
    (folder / "config.json").unlink()
    read = load.read(folder / "flax_model.msgpack", num_heads=3)
    assert any("assumed norm_eps 1e-05, activation 'gelu_quick'" in note for note in read.notes)
    with pytest.raises(ValueError, match="give num_heads"):
        load.read(folder)


def test_chunked_sharded_and_safetensors_files_of_flax_are_read(tmp_path, monkeypatch):
    options, params, arrays, config = made("clip")
    # The text tower of a whole CLIP is left out, with a note.
    arrays |= {"text_model.final_layer_norm.weight": np.ones(8, np.float32)}
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 64)
    read = check(write(tmp_path / "chunks", arrays, config), options, params)
    assert any("left out: text_model.final_layer_norm.weight" in note for note in read.notes)
    monkeypatch.undo()

    shards = tmp_path / "shards"
    shards.mkdir()
    names = {name.replace(".", "/"): array for name, array in flax_names(arrays).items()}
    index = {name: f"flax_model-0000{i % 2}.msgpack" for i, name in enumerate(names)}
    for shard in set(index.values()):
        part = {name: array for name, array in names.items() if index[name] == shard}
        (shards / shard).write_bytes(serialization.msgpack_serialize(part))
    where = shards / "flax_model.msgpack.index.json"
    where.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (shards / "config.json").write_text(json.dumps(config))
    check(shards, options, params)
    where.write_text(json.dumps({"weight_map": index | {"a/b": "flax_model-00000.msgpack"}}))
    with pytest.raises(ValueError, match=r"its shards lack a\.b"):
        load.read(shards)

    safe = tmp_path / "safetensors"
    safe.mkdir()
    contiguous = {name: np.ascontiguousarray(a) for name, a in flax_names(arrays).items()}
    safetensors_numpy.save_file(contiguous, safe / "model.safetensors", metadata={"format": "flax"})
    (safe / "config.json").write_text(json.dumps(config))
    check(safe, options, params)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_and_a_training_state(tmp_path, dtype):
    options, params, arrays, config = made("vit")
    half = {name: jnp.asarray(array, dtype) for name, array in flax_names(arrays).items()}
    tree = {"params": traverse_util.unflatten_dict(half, sep="."), "step": 3}
    (tmp_path / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    (tmp_path / "config.json").write_text(json.dumps(config))
    rounded = {
        path: np.asarray(jnp.asarray(array, dtype).astype(jnp.float32))
        for path, array in params.items()
    }
    read = check(tmp_path, options, rounded)
    assert any("left out: step" in note for note in read.notes)


def test_dinov2_resizes_as_its_flax_class_does():
    table_ = np.random.default_rng(0).normal(size=(1, 26, 6)).astype(np.float32)
    for grid in ((7, 3), (5, 6)):
        ours = positions.resize(table_, source=(5, 5), target=grid, method="keys_offset")
        scale = jnp.array([(grid[0] + 0.1) / 5, (grid[1] + 0.1) / 5], jnp.float32)
        theirs = jax.image.scale_and_translate(
            table_[0, 1:].reshape(5, 5, 6),
            shape=(*grid, 6),
            spatial_dims=(0, 1),
            scale=scale,
            translation=jnp.zeros(2),
            method="bicubic",
            antialias=False,
        )
        assert_close(ours[0, 1:], theirs.reshape(-1, 6), atol=2e-5)


def test_a_flax_folder_at_another_size_and_layout(tmp_path):
    _, _, arrays, config = made("clip")
    folder = write(tmp_path / "clip", arrays, config)
    images = np.random.default_rng(1).normal(size=(1, 24, 16, 3)).astype(np.float32)
    model: Any = vit_jax.load(folder, image_size=(24, 16))
    with pytest.warns(UserWarning) as warned:
        save.save(model, tmp_path / "a.safetensors", layout="timm")
    assert len(warned) == 1
    assert "assume activation gelu_erf, the model has gelu_quick" in str(warned[0].message)
    again: Any = vit_jax.load(
        tmp_path / "a.safetensors", num_heads=3, grid=(6, 4), activation="gelu_quick", norm_eps=1e-5
    )
    assert_close(again(images), model(images))


def packed(*items) -> bytes:
    """The bytes of a map with one name and the given value."""
    return b"\x81\xa1a" + b"".join(items)


def array_of(shape, dtype, data) -> bytes:
    inside = msgpack.packb((shape, dtype, data), use_bin_type=True)
    return msgpack.packb(msgpack.ExtType(1, inside))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(b"\x90" * 3), "extra data"),
        (packed(b"\x93\xc0\xc0\xc0"), "exceeds max_array_len"),
        (packed(b"\xc0"), "'a' is not an array"),
        (packed(b"\xa1b"), "'a' is not an array"),
        (packed(b"\xd6\xff\x00\x00\x00\x00"), "'a' is not an array"),
        (packed(msgpack.packb(msgpack.ExtType(2, b"ab"))), "an extension of kind 2"),
        (packed(msgpack.packb(msgpack.ExtType(1, b"ab"))), "damaged"),
        (packed(array_of((2, 3), "float32", bytes(20))), "damaged"),
        (packed(array_of((2**40, 2**40), "float32", bytes(24))), "its shape does not"),
        (packed(array_of((-2, -3), "float32", bytes(24))), "its shape does not"),
        (packed(array_of((2, 3), "float32", bytes(23))), "damaged"),
        (packed(array_of((1,), "object", bytes(8))), "which cannot be read"),
        (packed(array_of((1,), "float8_e4m3fn", bytes(1))), "which cannot be read"),
        (packed(array_of(("a",), "float32", bytes(4))), "its shape does not"),
        (b"\x82\xa1a" + array_of((), "float32", bytes(4)) + b"\xa1a\xc0", "a name twice"),
        (b"\x81\x01\xc0", "damaged"),
        (b"\x81\xa2\xff\xfe\xc0", "damaged"),
        (b"\x81\xa1a" * 5000, "damaged"),
        (b"\x81\xa1a" * 200 + b"\x80", "nested too deeply"),
        (b"\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (packed(b"\x81\xb9__msgpack_chunked_array__\xc3"), "damaged"),
    ],
)
def test_a_damaged_file_of_flax_is_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a readable checkpoint") as error:
        files.read(path)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_many_small_objects_takes_little_memory(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    one = b"\xa1a\x81\xa1b\x80"
    names = b"".join(b"\xa3%03d" % i + b"\x81" + one for i in range(900))
    path.write_bytes(b"\xde\x03\x84" + names)
    bombs = [path.read_bytes(), b"\x81\xa1a" + b"\xdd\x00\xff\xff\xff" + b"\x90" * 0xFFFFFF,
             b"\xdf\x00\x00\x27\x10\xa1a" * 900]  # fmt: skip
    for content in bombs:
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="not a readable checkpoint"):
                files.read(path)
            assert tracemalloc.get_traced_memory()[1] < 100 * 2**20 + 3 * len(content)
        finally:
            tracemalloc.stop()


def test_flax_files_are_recognised_by_their_first_byte():
    for tree in ({"a": 1}, {str(i): 1 for i in range(20)}, {str(i): 1 for i in range(70_000)}):
        assert msgpack_file.begins(msgpack.packb(tree)[:16])
    for other in (b"", b"\x80\x02", b"PK\x03\x04", b"\x93NUMPY", b"<html>", b"{"):
        assert not msgpack_file.begins(other)
