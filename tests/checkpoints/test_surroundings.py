"""Other content of a model's file: prefixes, a trainer's state, other models, a linear probe."""

import dataclasses
import zipfile
from typing import Any

import jax
import numpy as np
import pytest

import vit_jax
from tests import cli
from tests.checkpoints import parity
from tests.compare import assert_close
from vit_jax.checkpoints import convert, files, layouts, load, surgery, torch_file
from vit_jax.checkpoints.layouts.npz.big_vision import LAYOUT as big_vision
from vit_jax.checkpoints.layouts.torch.beit import LAYOUT as beit
from vit_jax.models.classifier import ViTOptions

TINY = ViTOptions(image_size=(16, 16), patch_size=(4, 4), width=24, depth=2, mlp_dim=32,
                  num_heads=3, num_classes=5)  # fmt: skip
IMAGES = np.random.default_rng(7).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
STATE = {
    "opt_state/0/mu/cls": np.ones((1, 1, 24), np.float32),
    "opt_state/0/count": np.int32(3),
    "step": np.int64(3),
}

forward = jax.jit(lambda model, images: model(images))


@pytest.mark.parametrize(
    "prefix", ["", "params/", "optimizer/target/", "target/params/", "opt/target/", "img/"]
)
def test_a_trainers_prefix_and_state_are_ignored(tmp_path, prefix) -> None:
    model = random_model(TINY)
    arrays = written(model, tmp_path, "vit_jax")
    np.savez(tmp_path / "b.npz", **{prefix + k: v for k, v in arrays.items()}, **STATE)
    read = load.read(tmp_path / "b.npz", grid=TINY.grid)
    assert read.notes == ("left out: opt_state, step",)
    same(load.assemble(read.options, read.params), model)


def test_a_text_tower_is_left_out_with_a_note(tmp_path) -> None:
    model = random_model(dataclasses.replace(TINY, pool="map"))
    arrays = written(model, tmp_path, "big_vision")
    towers = {k.replace("params/", "params/img/"): v for k, v in arrays.items()}
    towers |= {"params/txt/Embed_0/embedding": np.ones((9, 24)), "params/t": np.ones(1)}
    np.savez(tmp_path / "b.npz", **towers)
    same(vit_jax.load(tmp_path / "b.npz"), model)
    message = convert.convert(tmp_path / "b.npz", tmp_path / "c.npz", layout="big_vision")
    assert "note: left out: params/t, params/txt" in message


def test_a_model_without_positions_needs_position_none(tmp_path) -> None:
    model = random_model(dataclasses.replace(TINY, position="none"))
    arrays = written(model, tmp_path, "vit_jax")
    assert not any("pos" in name for name in arrays)
    with pytest.raises(ValueError, match="arrays: .*pos_embedding .*position='none'"):
        vit_jax.load(tmp_path / "a.npz", layout="vit_jax")
    again = vit_jax.load(tmp_path / "a.npz", layout="vit_jax", position="none", image_size=16)
    same(again, model)


def test_fixed_positions_are_written_as_a_table(tmp_path) -> None:
    for pool in ("token", "gap"):
        model = random_model(dataclasses.replace(TINY, position="sincos2d", pool=pool))
        written(model, tmp_path, "vit_jax")
        again = vit_jax.load(tmp_path / "a.npz")
        assert again.options.position == "learned_1d"
        same(again, model)


def test_a_class_row_without_a_class_token_marks_big_visions_oldest_files(tmp_path) -> None:
    model = random_model(dataclasses.replace(TINY, pool="gap"))
    arrays = written(model, tmp_path, "vit_jax")
    name = "Transformer/posembed_input/pos_embedding"
    arrays[name] = np.pad(arrays[name], ((0, 0), (1, 0), (0, 0)), constant_values=9.0)
    np.savez(tmp_path / "b.npz", **arrays)
    read = load.read(tmp_path / "b.npz")
    assert read.layout == "big_vision"
    same(load.assemble(read.options, read.params), model)


def test_a_linear_probe_is_one_head(tmp_path) -> None:
    options = dataclasses.replace(TINY, activation="gelu_erf")
    arrays = of_torch(random_model(options), tmp_path, "mae")
    weight, bias = arrays.pop("head.weight"), arrays.pop("head.bias")
    mean, variance = np.linspace(-1, 1, 24), np.linspace(0.1, 2, 24)
    probe = {"0.running_mean": mean, "0.running_var": variance, "0.num_batches_tracked": 9}
    probe |= {"1.weight": weight, "1.bias": bias}
    arrays |= {f"head.{k}": np.asarray(v) for k, v in probe.items()}
    torch_file.write(tmp_path / "b.pth", arrays, key="model")
    read = load.read(tmp_path / "b.pth", num_heads=3)
    assert read.layout == "mae"
    model: Any = load.assemble(read.options, read.params)
    normed = (np.asarray(model.features(IMAGES)) - mean) / np.sqrt(variance + 1e-6)
    assert_close(forward(model, IMAGES), normed @ weight.T + bias, atol=1e-5)


def test_biases_of_blocks_and_a_shared_one_are_summed(tmp_path) -> None:
    options = dataclasses.replace(TINY, activation="gelu_erf", position="none", key_bias=False,
                                  relative_bias="per_block", class_token=True)  # fmt: skip
    arrays = of_torch(random_model(options), tmp_path, "beit")
    before = arrays["blocks.1.attn.relative_position_bias_table"]
    arrays["rel_pos_bias.relative_position_bias_table"] = np.full_like(before, 0.5)
    torch_file.write(tmp_path / "b.pth", arrays, key="model")
    table = load.read(tmp_path / "b.pth").params["encoder/blocks/attention/relative_bias"]
    np.testing.assert_array_equal(table[1], before + 0.5)


def test_beit_without_biases_of_queries_is_not_mae() -> None:
    options = dataclasses.replace(TINY, activation="gelu_erf", qkv_bias=False, class_token=True,
                                  pool="gap", norm_at="pooled", layer_scale=0.1)  # fmt: skip
    arrays = layouts.table.write(beit.entries(options), random_params(options))
    assert layouts.find(arrays, "", path="", key="model") is beit


def test_blocks_that_pretrain_beits_class_token_are_left_out(tmp_path) -> None:
    options = parity.changed(TINY, activation="gelu_erf", position="none", key_bias=False,
                             relative_bias="shared", class_token=True, num_classes=0,
                             mask_token=True, mim_classes=9)  # fmt: skip
    model = random_model(options)
    arrays = of_torch(model, tmp_path, "beit")
    arrays |= {
        "cls_pt_layers.0.norm1.weight": np.ones(24, np.float32),
        "cls_pt_lm_head.weight": np.ones((9, 24), np.float32),
    }
    torch_file.write(tmp_path / "b.pth", arrays, key="model")
    read = load.read(tmp_path / "b.pth")
    assert read.notes[0] == "left out: cls_pt_layers, cls_pt_lm_head"
    again: Any = load.assemble(read.options, read.params)
    np.testing.assert_array_equal(again.patch_logits(IMAGES), model.patch_logits(IMAGES))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("MixerBlock_0/token_mixing/Dense_0/kernel", "an MLP-Mixer"),
        ("params/img/MixerBlock_11/LayerNorm_0/bias", "an MLP-Mixer"),
        ("blocks_token_only.0.norm1.weight", "a CaiT"),
        ("blocks.3.norm1.alpha", "a ResMLP"),
        ("blocks.0.norm11.weight", "a ViT of parallel blocks"),
        ("patch_embed.proj.0.weight", "more than one convolution"),
        ("embedding/kernel", "neither a transformer"),
    ],
)
def test_models_of_other_families_are_refused_by_name(name, what) -> None:
    with pytest.raises(ValueError, match=rf"^x: it holds .*{what}"):
        layouts.find({name: np.zeros(1)}, "", path="x")


def test_tensors_beside_a_state_dict_are_ignored(tmp_path) -> None:
    """PyTorch's random state is a tensor too."""
    torch_file.write(tmp_path / "a.pth", {"x": np.ones(3)}, key="model")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        pickle = archive.read("archive/data.pkl")
        rest = {n: archive.read(n) for n in archive.namelist() if not n.endswith("data.pkl")}
    # {"model": {"x": T}} -> {"rng": T, "model": {"x": T}}, with the same tensor twice.
    start = pickle.index(b"ctorch._utils")
    tensor = pickle[start : pickle.index(b"us.", start)]
    pickle = b"\x80\x02}X\x03\x00\x00\x00rng" + tensor + b"s" + pickle[3:]
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        for name, content in {**rest, "archive/data.pkl": pickle}.items():
            archive.writestr(name, content)
    assert list(files.read_arrays(tmp_path / "b.pth")) == ["x"]


# Opcodes that hash what is in place of %, sixty tuples, each of twice the one before.
NESTED = b")" + b"q\x00h\x00\x86" * 60
HASHED = {
    "setitems": b"}(%K\x02u",
    "setitem": b"}%K\x01s",
    "dict": b"(%K\x01d",
    "set": b"\x8f(%\x90",
    "record": b"ccollections\nCounter\n)R",
}
READ = """
import sys
from vit_jax.checkpoints import files
for path in sys.argv[1:]:
    try:
        files.read_arrays(path)
    except ValueError as error:
        print(error)
"""


def test_nested_tuples_are_not_hashed(tmp_path) -> None:
    """Hashing them would take for ever. The test uses another process, which can be ended."""
    for name, opcodes in HASHED.items():
        with zipfile.ZipFile(tmp_path / f"{name}.pth", "w") as archive:
            content = b"\x80\x04" + opcodes.replace(b"%", NESTED) + b"."
            archive.writestr("archive/data.pkl", content)
    paths = [tmp_path / f"{name}.pth" for name in HASHED]
    ended = cli.process(*paths, program=(*cli.PYTHON, "-c", READ), seconds=60)
    lines = ended.stdout.splitlines()
    assert len(lines) == len(HASHED), ended.stderr
    assert all("it holds no named tensors" in line for line in lines)


def test_an_archive_that_fills_the_memory_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "_SMALL", 2**16)
    for name in ("x.npy", "archive/data.pkl"):
        with zipfile.ZipFile(tmp_path / "a", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, bytes(2**20))
        with pytest.raises(ValueError, match="it would unpack to 1048576 bytes"):
            files.read_arrays(tmp_path / "a")


def test_a_big_vision_file_without_positions_has_fixed_ones_unless_config_says_none(
    tmp_path,
) -> None:
    model = random_model(dataclasses.replace(TINY, position="sincos2d", pool="gap"))
    written(model, tmp_path, "big_vision")
    same(vit_jax.load(tmp_path / "a.npz", image_size=16), model)
    bare = vit_jax.load(tmp_path / "a.npz", image_size=16, position="none")
    assert bare.options.position == "none"
    assert big_vision.recognises(files.read_arrays(tmp_path / "a.npz"))


def random_params(options):
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    return {path: rng.normal(0, 0.3, shape).astype(np.float32) for path, shape in shapes.items()}


def random_model(options) -> Any:
    return load.assemble(options, random_params(options))


def written(model, folder, layout) -> dict[str, np.ndarray]:
    vit_jax.save(model, folder / "a.npz", layout=layout)
    (folder / "config.json").unlink()
    return files.read_arrays(folder / "a.npz")


def of_torch(model, folder, layout) -> dict[str, np.ndarray]:
    vit_jax.save(model, folder / "a.pth", layout=layout)
    (folder / "config.json").unlink()
    return files.read_arrays(folder / "a.pth")


def same(ours, theirs) -> None:
    assert_close(forward(ours, IMAGES), forward(theirs, IMAGES), atol=1e-5)
