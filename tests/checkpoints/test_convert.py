"""Any model can be written in every layout that can hold it, and read back."""

import json
import warnings
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import files, load, save
from vit_jax.checkpoints.convert import convert

SOURCES = {
    "vitjax_cls/ckpt.npz": ("vit_jax", "timm", "deit", "hf", ""),
    "vitjax_gap_rep/ckpt.npz": ("vit_jax", "big_vision", ""),
    "timm_vit_cls/model.safetensors": ("timm", "deit", "hf", "vit_jax", ""),
    "deit_distilled/checkpoint.pth": ("timm", "deit", "hf", ""),
    "timm_beit_relpos/model.safetensors": ("timm", "beit", "hf", ""),
    "mae_vit_gap/checkpoint.pth": ("timm", "mae", ""),
    "hf_beit_mim": ("beit", "hf", ""),
    "hf_vitmae_normpix": ("mae", "hf", ""),
}
SUFFIX = {"vit_jax": ".npz", "big_vision": ".npz", "timm": ".safetensors", "hf": "", "": ""}


@pytest.mark.parametrize("source", SOURCES)
def test_parameters_survive_every_layout(shared, tmp_path, source):
    told = {"num_heads": 3, "decoder_heads": 2 if "vitmae" in source else 0}
    original = load.read(shared / "fixtures" / source, **told)
    for layout in SOURCES[source]:
        target = tmp_path / f"m{layout}{SUFFIX.get(layout, '.pth')}"
        save.write(original, target, layout=layout)
        given = told if layout else {}  # a run needs no hints
        again = load.read(target, layout=layout, **given)
        assert set(again.params) == set(original.params), layout
        for path, array in original.params.items():
            np.testing.assert_array_equal(again.params[path], array, err_msg=f"{layout}: {path}")
        assert again.options.image_size == original.options.image_size
        assert again.options.pool == original.options.pool


def test_big_vision_adds_the_row_of_the_class_token_to_the_token(shared, tmp_path):
    source = shared / "fixtures/vitjax_cls/ckpt.npz"
    io = np.load(shared / "fixtures/vitjax_cls/io.npz")
    convert(source, tmp_path / "a.npz", layout="big_vision")
    convert(tmp_path / "a.npz", tmp_path / "b.npz", layout="vit_jax")
    for name in ("a.npz", "b.npz"):
        logits = load_vit(tmp_path / name)(io["images"])
        assert_close(logits, io["expected_logits"], atol=1e-5)


def test_the_report_lists_what_was_changed(shared, tmp_path):
    source = shared / "fixtures/hf_vit"
    target = tmp_path / "m.npz"
    report = convert(source, target, image_size=(24, 40), num_classes=3, check=True)
    for line in (
        "hf, ViT of width 48, depth 2, 3 heads, patches of 8x8, 32x32 pixels, 7 classes",
        "resized: encoder/position (1, 17, 48) -> (1, 16, 48)",
        "dropped: head/bias, head/kernel",
        "initialised: head/bias, head/kernel",
        "note: readers of the vit_jax layout assume activation gelu_tanh, the model has gelu_erf",
        "check: read back, logits differ by at most",
        "is not installed",
    ):
        assert line in report
    assert load_vit(target, grid=(3, 5)).options.image_size == (24, 40)


def test_a_run_keeps_the_resize_methods_of_its_origin(shared, tmp_path):
    source = shared / "fixtures/hf_vit"
    for folder in ("run", "run.txt"):
        assert "a run, 48,487 parameters" in convert(source, tmp_path / folder)
    images = np.load(shared / "fixtures/hf_posemb_interp/io.npz")
    model = load_vit(tmp_path / "run", image_size=(32, 56))
    assert_close(model(images["images_32x56"]), images["expected_logits_32x56"], atol=1e-5)


def test_save_warns_of_options_that_readers_of_the_layout_assume_differently(shared, tmp_path):
    model = load_vit(shared / "fixtures/timm_vit_cls/model.safetensors", num_heads=3)
    with pytest.warns(
        UserWarning, match="readers of the vit_jax layout assume activation gelu_tanh"
    ):
        vit_jax.save(model, tmp_path / "m.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vit_jax.save(model, tmp_path / "m.safetensors", layout="timm")
    again = load_vit(tmp_path / "m.safetensors", num_heads=3)
    np.testing.assert_array_equal(again.head.kernel[...], model.head.kernel[...])


@pytest.mark.parametrize(
    ("target", "layout", "message"),
    [
        ("m.safetensors", "", "a .safetensors file needs a layout: give one of vit_jax, "),
        ("m.npz", "timm", "files of the timm layout end in .safetensors or .pth"),
        ("m.safetensors", "hf", "the hf layout is a folder: give a name without .safetensors"),
        ("m.pth", "pytorch", "unknown layout 'pytorch': choose one of vit_jax, "),
        ("m.pth", "beit", "the beit layout cannot hold "),
        ("full", "hf", "exists and is not empty: choose another folder"),
        ("file/m.npz", "vit_jax", "cannot be written: "),
    ],
)
def test_a_refused_conversion_leaves_no_files(shared, tmp_path, target, layout, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = listing(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        convert(shared / "fixtures/vitjax_cls/ckpt.npz", tmp_path / target, layout=layout)
    assert "\n" not in str(error.value)
    assert listing(tmp_path) == before


def test_an_interrupted_write_leaves_the_old_file(shared, tmp_path, monkeypatch):
    original = load.read(shared / "fixtures/vitjax_cls/ckpt.npz")
    target = tmp_path / "m.npz"
    target.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", lambda file, **_: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save.write(original, target, layout="vit_jax")
    assert listing(tmp_path) == {"m.npz": b"old"}


@pytest.mark.parametrize(
    "source", ["vitjax_cls/ckpt.npz", "timm_vit_cls/model.safetensors", "hf_vit/model.safetensors"]
)
def test_all_arrays_that_are_missing_or_have_a_wrong_shape_are_named(shared, tmp_path, source):
    arrays = files.read_arrays(shared / "fixtures" / source)
    missing, misshapen = [n for n in sorted(arrays) if "bias" in n and "head" not in n][-2:]
    arrays.pop(missing)
    whole = arrays[misshapen]
    arrays[misshapen] = whole[:-1]
    arrays["surplus"] = np.zeros(3, np.float32)
    path = tmp_path / "m.safetensors"
    safetensors_numpy.save_file(arrays, path)
    with pytest.raises(ValueError, match="3 misfits: ") as error:
        convert(path, tmp_path / "out", num_heads=3)
    shapes = f"{misshapen} has shape {arrays[misshapen].shape}, expected {whole.shape}"
    for part in (f"missing {missing}", shapes, "unexpected surplus (3,)"):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight"),
        ("wte.weight", "h.0.attn.c_attn.weight"),
        ("bert.encoder.layer.0.attention.self.query.weight", "bert.pooler.dense.weight"),
    ],
)
def test_a_language_model_fits_no_layout(tmp_path, names):
    path = tmp_path / "model.safetensors"
    safetensors_numpy.save_file({name: np.zeros((4, 4), np.float32) for name in names}, path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="no known layout has arrays named "):
        convert(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 1}, "it takes 3 channels, the model 1"),
        ({"image_size": 30}, "image height 30 is not a multiple of the patch of 8 pixels: use 32"),
        ({"patch_size": 7}, "image height 32 is not a multiple of the patch of 7 pixels: use 35"),
        ({"image_size": 0}, "image_size is .0, 0.: give .height, width., both positive"),
        ({"patch_size": (8, 0)}, "patch"),
        ({"width": 60}, "encoder/embedding/kernel is "),
        ({"resize": "nearest"}, "unknown interpolation 'nearest': choose one of align_corners"),
    ],
)
def test_models_that_do_not_fit_are_refused_in_one_line(shared, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        load_vit(shared / "fixtures/vitjax_cls/ckpt.npz", **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_by_name(shared, tmp_path, value):
    arrays = files.read_arrays(shared / "fixtures/timm_vit_cls/model.safetensors")
    arrays["blocks.1.mlp.fc1.bias"][3] = value
    arrays["head.bias"][0] = value
    source = tmp_path / "a.safetensors"
    safetensors_numpy.save_file(arrays, source)
    with pytest.raises(ValueError, match="encoder/blocks/mlp/fc1/bias has values that are not fin"):
        convert(source, tmp_path / "b.npz", num_heads=3)
    assert listing(tmp_path).keys() == {"a.safetensors"}
    arrays["blocks.1.mlp.fc1.bias"][3] = 0
    safetensors_numpy.save_file(arrays, source)
    convert(source, tmp_path / "b.npz", num_heads=3, num_classes=2)  # the head is dropped


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_, np.int64])
def test_parameters_that_are_no_floating_point_numbers_are_refused(shared, tmp_path, dtype):
    arrays = files.read_arrays(shared / "fixtures/timm_vit_cls/model.safetensors")
    arrays["blocks.1.mlp.fc1.weight"] = arrays["blocks.1.mlp.fc1.weight"].astype(dtype)
    safetensors_numpy.save_file(arrays, tmp_path / "a.safetensors")
    name = f"blocks.1.mlp.fc1.weight holds {np.dtype(dtype)}, but parameters are floating-point"
    with pytest.raises(ValueError, match=name):
        load.read(tmp_path / "a.safetensors", num_heads=3)


def test_options_of_a_run_survive(shared, tmp_path):
    original = load.read(shared / "fixtures/hf_vit_hybrid")
    save.write(original, tmp_path / "run")
    again = load.read(tmp_path / "run")
    assert again.options == original.options
    assert again.preprocessing == original.preprocessing
    assert again.resize == original.resize


def listing(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def load_vit(path, **changes: Any) -> Any:
    """A model, typed as Any because each test knows its type."""
    return vit_jax.load(path, **changes)


def test_assumptions_are_noted(shared, tmp_path, caplog):
    """A Hugging Face folder without preprocessor_config.json has no mean and std."""
    report = convert(shared / "fixtures/hf_vit", tmp_path / "out.npz")
    message = "no file beside it has mean, std: assumed mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5)"
    assert f"note: {message}" in report
    vit_jax.load(shared / "fixtures/hf_vit")
    assert caplog.messages == [f"{shared / 'fixtures/hf_vit'}: {message}"]
    caplog.clear()
    vit_jax.load(shared / "fixtures/vitjax_cls/ckpt.npz")
    (note,) = caplog.messages  # the layout alone tells all but the grid
    assert "16 positions are read as 4x4, because no file beside it gives a size" in note
