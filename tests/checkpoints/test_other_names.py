"""torchvision's ViT and facebookresearch's DINOv2 and MoCo v3 are read with their names."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

import vit_jax
from tests.checkpoints import parity
from tests.checkpoints.parity import TINY
from tests.compare import assert_close
from vit_jax.checkpoints import load, surgery, torch_file
from vit_jax.checkpoints.layouts import table
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm.vit import LAYOUT as timm
from vit_jax.checkpoints.layouts.torch.dinov2 import LAYOUT as dinov2
from vit_jax.checkpoints.layouts.torch.moco import LAYOUT as moco
from vit_jax.checkpoints.layouts.torch.torchvision import LAYOUT as torchvision
from vit_jax.models import interpolation, positions

HEADS: Any = {"num_heads": 3}
DINO = dataclasses.replace(TINY, num_classes=0, layer_scale=1.0, mask_token=True)
MOCO = dataclasses.replace(TINY, num_classes=0, num_heads=2)


def random_params(options) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    return {path: rng.normal(0, 0.2, shape).astype(np.float32) for path, shape in shapes.items()}


def check(path, options, params, **how):
    """Asserts that a file reads as the given model; returns the checkpoint."""
    read = parity.read(path, **(HEADS | how))
    shown = ("registers", "mlp", "num_classes", "num_heads", "depth", "representation_size")
    assert {n: getattr(read.options, n) for n in shown} == {n: getattr(options, n) for n in shown}
    assert read.params.keys() == params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(read.params[name], array)
    return read


def test_torchvision_gives_the_logits_of_the_original(shared):
    folder = shared / "fixtures/torchvision_vit"
    io = np.load(folder / "io.npz")
    model: Any = vit_jax.load(folder / "checkpoint.pth", **HEADS)
    assert_close(model(io["images"]), io["expected_logits"])
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)


def test_dinov2_gives_the_tokens_of_the_original_at_other_sizes(shared):
    folder = shared / "fixtures/facebook_dinov2"
    io = np.load(folder / "io.npz")
    for size, end in (((56, 56), ""), ((84, 42), "_84x42")):
        model: Any = vit_jax.load(folder / "checkpoint.pth", image_size=size, **HEADS)
        tokens = model.encode(io["images" + end])
        assert_close(tokens[:, 0], io["expected_class" + end])
        assert_close(tokens[:, 1:], io["expected_patches" + end])
        assert_close(model.features(io["images" + end]), io["expected_class" + end])


@pytest.mark.parametrize(
    "changes",
    [{}, {"representation_size": 40}, {"num_classes": 0}],
    ids=["plain", "representation", "headless"],
)
@pytest.mark.parametrize("names", [("mlp.0", "mlp.3"), ("mlp.linear_1", "mlp.linear_2")])
def test_torchvisions_names_of_all_releases(tmp_path, changes, names):
    options = dataclasses.replace(TINY, **changes)
    params = random_params(options)
    arrays = table.write(torchvision.entries(options), params)
    older = {
        name.replace("mlp.0", names[0]).replace("mlp.3", names[1]): array
        for name, array in arrays.items()
    }
    torch_file.write(tmp_path / "a.pth", {"module." + k: v for k, v in older.items()})
    read = check(tmp_path / "a.pth", options, params)
    assert read.layout == "torchvision"
    assert any("interpolation 'bilinear_antialias'" in note for note in read.notes)
    methods = (read.resize.position, read.resize.patch)
    assert methods == ("bicubic_align_corners", "bicubic_antialias")


def test_the_heads_of_torchvisions_five_models_are_known():
    shapes = {"conv_proj.weight": (768, 3, 32, 32), "encoder.pos_embedding": (1, 50, 768)}
    shapes |= {"encoder.layers.encoder_layer_0.mlp.0.weight": (3072, 768)}
    for width, patch, heads in ((768, 16, 12), (1024, 16, 16), (1024, 32, 16), (1280, 14, 16)):
        shapes["conv_proj.weight"] = (width, 3, patch, patch)
        arrays = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes.items()}
        options = torchvision.infer(arrays, Hints())
        assert (options.num_heads, options.patch_size) == (heads, (patch, patch))
    crops = {(1280, 14, 518): 1.0, (1024, 16, 224): 224 / 242, (768, 16, 224): 0.875}
    for (width, patch, size), crop in crops.items():
        options = dataclasses.replace(
            TINY, width=width, num_heads=16, patch_size=(patch, patch), image_size=(size, size)
        )
        assert torchvision.preprocessing(options, Hints()).crop_pct == crop


def test_the_encoder_prefix_of_torchvision_is_not_removed(tmp_path):
    params = random_params(TINY)
    arrays = table.write(torchvision.entries(TINY), params)
    for prefix in ("encoder.", "module.encoder.", "encoder.encoder.", "_orig_mod.net."):
        wrapped = {prefix + name: array for name, array in arrays.items()}
        torch_file.write(tmp_path / "a.pth", wrapped | {"criterion.weight": np.ones(3, np.float32)})
        assert check(tmp_path / "a.pth", TINY, params).layout == "torchvision"


@pytest.mark.parametrize("head", ["heads.", "heads.0."])
def test_a_users_head_on_a_torchvision_model_is_read(tmp_path, head):
    params = random_params(TINY)
    arrays = table.write(torchvision.entries(TINY), params)
    arrays = {name.replace("heads.head.", head): array for name, array in arrays.items()}
    torch_file.write(tmp_path / "a.pth", arrays)
    check(tmp_path / "a.pth", TINY, params)


def test_torchvisions_convolutional_stem_is_refused_by_name(tmp_path):
    arrays = table.write(torchvision.entries(TINY), random_params(TINY))
    arrays["conv_proj.conv_last.weight"] = arrays.pop("conv_proj.weight")
    torch_file.write(tmp_path / "a.pth", arrays)
    with pytest.raises(ValueError, match="more than one convolution before its blocks"):
        load.read(tmp_path / "a.pth", **HEADS)


def dino_arrays(options, params, chunk=0) -> dict[str, np.ndarray]:
    """A model's arrays with facebookresearch's names; `chunk` is the number of blocks per chunk."""
    arrays = {}
    for name, array in table.write(dinov2.entries(options), params).items():
        name = name.replace("reg_token", "register_tokens")
        if options.mlp == "swiglu":
            name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        if chunk and (block := re.match(r"blocks\.(\d+)\.", name)):
            name = name.replace("blocks.", f"blocks.{int(block[1]) // chunk}.", 1)
        arrays[name] = array[0] if name == "mask_token" else array
    return arrays


@pytest.mark.parametrize("chunk", [0, 1, 2])
@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "bicubic_offset"),
        ({"registers": 4}, "bicubic_antialias"),
        ({"mlp": "swiglu"}, "bicubic_offset"),
        ({"mlp": "swiglu", "registers": 2}, "bicubic_antialias"),
        ({"layer_scale": 0.0}, "bicubic_offset"),
    ],
)
def test_dinov2_is_read_with_all_its_parts(tmp_path, chunk, changes, method):
    options = dataclasses.replace(DINO, **changes)
    params = random_params(options)
    arrays = dino_arrays(options, params, chunk)
    teacher = {f"teacher.backbone.{name}": array for name, array in arrays.items()}
    for held in (arrays, teacher | {"teacher.dino_head.last_layer.weight": np.zeros((2, 2), "f4")}):
        torch_file.write(tmp_path / "a.pth", held, key="model")
        read = check(tmp_path / "a.pth", options, params)
        assert (read.layout, read.resize.position) == ("dinov2", method)
        assert read.resize.patch == "bicubic_antialias"
        assert read.preprocessing.mean == (0.485, 0.456, 0.406)


def test_a_dinov2_that_lacks_a_part_is_refused(tmp_path):
    arrays = dino_arrays(DINO, random_params(DINO), chunk=1)
    del arrays["blocks.1.1.ls2.gamma"]
    torch_file.write(tmp_path / "a.pth", arrays)
    with pytest.raises(ValueError, match="missing blocks.1.ls2.gamma"):
        load.read(tmp_path / "a.pth", **HEADS)


def moco_arrays(params, **more) -> dict[str, np.ndarray]:
    arrays = table.write(moco.entries(MOCO), params)
    rows = positions.moco(MOCO.grid, MOCO.width)
    arrays["pos_embed"] = np.pad(rows, ((0, 0), (1, 0), (0, 0)))
    return arrays | more


def test_the_trained_encoder_of_mocos_pretraining_is_read(tmp_path):
    params = random_params(MOCO)
    arrays = moco_arrays(params)
    params["encoder/position"] = arrays["pos_embed"]
    projection = {
        "head.0.weight": np.zeros((8, MOCO.width), np.float32),
        "head.1.running_mean": np.zeros(8, np.float32),
        "head.3.weight": np.zeros((4, 8), np.float32),
    }
    whole = {f"module.base_encoder.{k}": v for k, v in (arrays | projection).items()}
    whole |= {f"module.momentum_encoder.{k}": v + 1 for k, v in (arrays | projection).items()}
    whole |= {"module.predictor.0.weight": np.zeros((4, 4), np.float32)}
    torch_file.write(tmp_path / "a.pth", whole, key="state_dict")
    read = check(tmp_path / "a.pth", MOCO, params, num_heads=2)
    notes = "\n".join(read.notes)
    assert read.layout == "moco"
    assert (read.resize.position, read.resize.patch) == ("sincos2d", "bicubic_antialias")
    assert "'module.base_encoder.', not under 'module.momentum_encoder.'" in notes
    assert "module.predictor.0.weight" in notes
    assert "left out: head.* (3 arrays), a projection" in notes

    torch_file.write(tmp_path / "deit.pth", arrays, key="model")  # as its converter writes it
    assert check(tmp_path / "deit.pth", MOCO, params, num_heads=2).layout == "moco"


def test_a_classifier_on_moco_keeps_its_head(tmp_path):
    options = dataclasses.replace(MOCO, num_classes=5)
    params = random_params(options)
    arrays = table.write(moco.entries(options), params)
    arrays["pos_embed"] = params["encoder/position"] = moco_arrays(random_params(MOCO))["pos_embed"]
    linear = {f"module.{name}": array for name, array in arrays.items()}
    torch_file.write(tmp_path / "a.pth", linear, key="state_dict")
    read = check(tmp_path / "a.pth", options, params, num_heads=2)
    assert (read.layout, read.preprocessing.crop_pct) == ("moco", 0.875)


def test_mocos_small_model_has_twelve_heads(tmp_path):
    options = dataclasses.replace(MOCO, width=384, num_heads=12, depth=1)
    params = {path: np.zeros(shape, np.float32) for path, shape in surgery.shapes(options).items()}
    arrays = table.write(moco.entries(options), params)
    arrays["pos_embed"] = np.pad(positions.moco(options.grid, 384), ((0, 0), (1, 0), (0, 0)))
    torch_file.write(tmp_path / "a.pth", arrays)
    read = load.read(tmp_path / "a.pth")
    assert parity.read(tmp_path / "a.pth").options.num_heads == 12
    assert any("assumed num_heads 12" in note for note in read.notes)


def test_mocos_fixed_positions_are_computed_again_and_others_interpolated():
    fixed = np.pad(positions.moco((4, 4), 24), ((0, 0), (1, 0), (0, 0)))
    moved = positions.resize(fixed, source=(4, 4), target=(6, 5), method="sincos2d")
    np.testing.assert_array_equal(moved[:, 1:], positions.moco((6, 5), 24))
    np.testing.assert_array_equal(moved[:, 0], 0)
    # A table that was trained on is no longer fixed.
    trained = fixed + np.float32(0.01)
    np.testing.assert_array_equal(
        positions.resize(trained, source=(4, 4), target=(6, 5), method="sincos2d"),
        positions.resize(trained, source=(4, 4), target=(6, 5), method="bicubic"),
    )


def test_mocos_positions_follow_its_formula():
    # y counts rows here: the original's "w" is the first axis of its grid.
    table = positions.moco((3, 3), 16)
    omega = 1 / 10_000.0 ** (np.arange(4) / 4)
    for row in range(3):
        for column in range(3):
            y, x = row * omega, column * omega
            wanted = np.concatenate([np.sin(y), np.cos(y), np.sin(x), np.cos(x)])
            assert_close(table[0, 3 * row + column], wanted, atol=1e-6)


def test_interpolation_with_an_offset_resizes_an_axis_of_the_same_size():
    # PyTorch's bicubic of 4 points at a scale of (4 + 0.1) / 4.
    weights = interpolation.matrix(4, 4, "bicubic_offset")
    assert not np.allclose(weights, np.eye(4))
    assert_close(weights.sum(axis=1), 1, atol=1e-12)
    table = np.random.default_rng(0).normal(size=(1, 17, 8)).astype(np.float32)
    for method in ("bicubic_offset", "keys_offset", "bicubic_align_corners"):
        same = positions.resize(table, source=(4, 4), target=(4, 4), method=method)  # type: ignore
        np.testing.assert_array_equal(same, table)
    corners = interpolation.matrix(4, 7, "bicubic_align_corners")
    assert_close(corners[::2], np.eye(4), atol=1e-12)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["storage_tokens", "rope_embed.periods"], "a DINOv3"),
        (["embeddings.patch_embeddings.weight", "layer.0.layer_scale1.lambda1"], "a DINOv3"),
        (["blocks.0.mlp.w1.weight", "blocks.0.mlp.w2.weight"], "gate and value in two layers"),
        (["visual.transformer.resblocks.0.attn.in_proj_weight"], "a CLIP with the names of OpenAI"),
        (["text_model.embeddings.token_embedding.weight"], "a text tower, but no vision model"),
    ],
)
def test_similar_unsupported_models_are_refused_by_name(tmp_path, names, what):
    torch_file.write(tmp_path / "a.pth", {name: np.zeros((2, 2), np.float32) for name in names})
    with pytest.raises(ValueError, match=what) as error:
        load.read(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


def test_timms_files_are_not_read_as_others(tmp_path):
    arrays = table.write(timm.entries(TINY), random_params(TINY))
    torch_file.write(tmp_path / "a.pth", arrays)
    assert load.read(tmp_path / "a.pth", **HEADS).layout == "timm"
