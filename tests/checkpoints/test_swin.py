"""The layouts of timm's, Microsoft's and Hugging Face's Swin."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from tests.checkpoints.parity import read
from tests.compare import assert_close
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hf.swin import LAYOUT as hf_swin
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm.swin import LAYOUT as timm_swin
from vit_jax.models import zoo


@pytest.fixture
def file(shared):
    return shared / "fixtures" / "timm_swin" / "model.safetensors"


@pytest.fixture
def io(file):
    return np.load(file.with_name("io.npz"))


@nnx.jit
def logits_and_map(model, images):
    return model(images), model.encode(images)


def test_matches_the_original_and_round_trips(file, io):
    logits, encoded = logits_and_map(load.load(file), io["images"])
    assert_close(logits, io["expected_logits"])
    assert_close(encoded, io["expected_features"])
    checkpoint = read(file)
    assert checkpoint.resize.relative == "geometric_linear"
    original = safetensors.numpy.load_file(file)
    written = table.write(timm_swin.entries(checkpoint.options), checkpoint.params)
    assert written.keys() == original.keys()
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array)


def test_the_original_file_merges_at_the_end_of_a_stage(file, io, tmp_path):
    names = {"head.fc": "head", "layers.1.downsample": "layers.0.downsample"}
    old = {}
    for name, array in safetensors.numpy.load_file(file).items():
        for new, before in names.items():
            name = name.replace(new, before)
        old[name] = array
    old["layers.0.blocks.1.attn_mask"] = np.zeros((4, 16, 16), np.float32)
    old["layers.0.blocks.1.attn.relative_position_index"] = np.zeros((16, 16), np.int64)
    safetensors.numpy.save_file(old, tmp_path / "original.safetensors")
    model = load.load(tmp_path / "original.safetensors")
    assert_close(model(io["images"]), io["expected_logits"])


def test_the_names_of_hugging_face_of_both_releases_read_the_same(file, tmp_path):
    checkpoint = read(file)
    arrays = table.write(hf_swin.entries(checkpoint.options), checkpoint.params)
    renamed = {
        "attention.self.query": "attention.q_proj",
        "attention.self.key": "attention.k_proj",
        "attention.self.value": "attention.v_proj",
        "attention.self.relative": "attention.relative_position_bias.relative",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }

    def of_5(name):
        for before, after in renamed.items():
            name = name.replace(before, after)
        return name

    config = {"image_size": 32, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin"} | config))
    index = {"swin.encoder.layers.0.blocks.0.attention.self.relative_position_index": np.ones(4)}
    for spelt in (arrays, {of_5(k): v for k, v in arrays.items()}, arrays | index):
        safetensors.numpy.save_file(
            {k: np.ascontiguousarray(v) for k, v in spelt.items()}, tmp_path / "model.safetensors"
        )
        found = read(tmp_path)
        fields = {"activation": "gelu_tanh", "norm_eps": 1e-6, "padding": "before_shift"}
        assert found.options == zoo.change(checkpoint.options, image_size=(32, 32), **fields)
        assert (found.resize.relative, found.resize.patch) == ("bicubic", "bicubic_antialias")
        for path, array in checkpoint.params.items():
            np.testing.assert_array_equal(found.params[path], array)
    body = {k.removeprefix("swin."): v for k, v in arrays.items() if k.startswith("swin.")}
    assert layouts.find(body, "", path="body") is hf_swin
    assert hf_swin.infer(hf_swin.canonical(body, Hints()), Hints()).num_classes == 0


def test_tables_are_resized_only_when_the_window_changes(file):
    checkpoint = read(file)
    paths = {"stage1/blocks/relative_bias", "stage2/blocks/relative_bias"}

    def resized(**changes):
        target = zoo.change(checkpoint.options, **changes)
        params, report = surgery.adapt(
            checkpoint.params,
            source=checkpoint.options,
            target=target,
            key=jax.random.key(0),
            resize=timm_swin.resize(checkpoint.options),
        )
        return {line.split(" ")[0] for line in report.resized}, params

    assert resized(image_size=(48, 64))[0] == set()
    assert resized(windows=((2, 3),))[0] == paths
    changed, params = resized(image_size=(16, 12))  # 4 x 3 features in the second stage
    assert changed == {"stage2/blocks/relative_bias"}
    assert params["stage2/blocks/relative_bias"].shape == (2, 7 * 5, 4)


def test_windows_that_are_not_square_must_be_given(file, tmp_path):
    checkpoint = read(file)
    target = zoo.change(checkpoint.options, image_size=(64, 64), windows=((3, 5),))
    params, _ = surgery.adapt(
        checkpoint.params, source=checkpoint.options, target=target, key=jax.random.key(0)
    )
    arrays = table.write(timm_swin.entries(target), params)
    safetensors.numpy.save_file(
        {k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "file.safetensors"
    )
    with pytest.raises(ValueError, match="45 relative positions do not fit a square window"):
        read(tmp_path / "file.safetensors")
    assert read(tmp_path / "file.safetensors", grid=(3, 5)).options.windows == ((3, 5),) * 2


def test_names_and_shapes_at_full_size(shared):
    manifest = json.loads((shared / "fixtures/manifests/timm_1000.json").read_text())
    entry = manifest["swin_tiny_patch4_window7_224"]
    tensors = entry.get("tensors", entry)
    arrays = {k: np.broadcast_to(np.float32(0), shape) for k, shape in tensors.items()}
    assert layouts.find(arrays, "", path="manifest") is timm_swin
    options = timm_swin.infer(timm_swin.canonical(arrays, Hints()), Hints())
    assert (options.image_size, options.stage_windows) == ((224, 224), ((7, 7),) * 4)
    shapes = surgery.shapes(options)
    assert shapes == surgery.shapes(zoo.options("Swin-T"))
    params = {p: np.broadcast_to(np.float32(0), shape) for p, shape in shapes.items()}
    written = table.write(timm_swin.entries(options), params)
    assert {k: list(v.shape) for k, v in written.items()} == tensors


def test_a_missing_stage_and_an_unknown_activation_are_named(file):
    arrays = safetensors.numpy.load_file(file)
    later = {k.replace("layers.1.blocks", "layers.2.blocks"): v for k, v in arrays.items()}
    with pytest.raises(ValueError, match="stages are .0, 2.: some are missing"):
        timm_swin.infer(later, Hints())
    trimmed = arrays | {"patch_embed.proj.weight": arrays["patch_embed.proj.weight"][..., :1]}
    with pytest.raises(ValueError, match="patch_embed.proj.weight has 2x1 patches"):
        timm_swin.infer(trimmed, Hints())
    with pytest.raises(ValueError, match="hidden_act is 'relu'"):
        hf_swin.infer({}, Hints(config={"hidden_act": "relu"}))
