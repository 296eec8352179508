"""timm's config.json: known options are used, unsupported ones refused, missing ones noted."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.checkpoints.parity import TINY
from vit_jax.checkpoints import layouts, load, save, surgery
from vit_jax.checkpoints.convert import convert
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm.swin import LAYOUT as timm_swin
from vit_jax.checkpoints.layouts.timm.vit import LAYOUT as timm
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.swin import SwinOptions

SWIN = SwinOptions(
    image_size=(32, 64), patch_size=(4, 4), width=8, depths=(1, 1), num_heads=(2, 2), num_classes=3
)


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"act_layer": "gelu_tanh"}, "activation", "gelu_tanh"),
        ({"act_layer": "quick_gelu"}, "activation", "gelu_quick"),
        ({"global_pool": "avg"}, "pool", "gap"),
        ({"num_heads": 6}, "num_heads", 6),
    ],
)
def test_arguments_of_the_model_are_used(arguments, field, value):
    options = timm.infer(written(TINY), hints(**arguments))
    assert getattr(options, field) == value


def test_only_clip_has_another_epsilon():
    arrays = written(dataclasses.replace(TINY, input_norm=True, patch_bias=False))
    for name, eps in {"vit_base_patch32_clip_224": 1e-5, "vit_tiny_patch16_224": 1e-6}.items():
        assert timm.infer(arrays, hints(architecture=name)).norm_eps == eps
    assert timm.infer(arrays, Hints(num_heads=3)).norm_eps == 1e-5


@pytest.mark.parametrize(
    ("width", "changes", "architecture", "number"),
    [
        (1536, {"mlp": "swiglu"}, "", 24),  # DINOv2
        (1536, {"pool": "map"}, "", 16),  # SigLIP 2
        (768, {"pool": "gap"}, "", 12),
        (768, {"pool": "gap"}, "vit_base_patch16_gap_224", 16),  # I-JEPA
    ],
)
def test_heads_of_models_with_the_same_width(width, changes, architecture, number):
    sizes = {"width": width, "num_heads": 12, "depth": 1, "mlp_dim": 8}
    shapes = surgery.shapes(options := dataclasses.replace(TINY, **sizes, **changes))
    params = {k: np.broadcast_to(np.float32(0), s) for k, s in shapes.items()}
    arrays = layouts.table.write(timm.entries(options), params)
    assert timm.infer(arrays, Hints(config={"architecture": architecture})).num_heads == number


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"architecture": "vit_base_patch16_rope_ape_224"}, "rotary positions"),
        ({"architecture": "vit_pe_core_base_patch16_224"}, "rotary positions"),
        ({"architecture": "eva02_tiny_patch14_336"}, "rotary positions"),
        ({"architecture": "vit_base_patch16_rpn_224"}, "norms after the branches of a block"),
        ({"architecture": "eva02_enormous_patch14_clip_224"}, "norms after the branches"),
        ({"global_pool": "avgmax"}, "global_pool='avgmax'"),
        ({"model_args": {"pool_include_prefix": True}}, "pool_include_prefix=True"),
        ({"model_args": {"act_layer": "relu"}}, "act_layer='relu'"),
        ({"model_args": {"norm_layer": "layernorm2d"}}, "norm_layer='layernorm2d'"),
        ({"model_args": {"use_post_norm": True}}, "use_post_norm=True"),
        ({"model_args": {"use_rot_pos_emb": True}}, "use_rot_pos_emb=True"),
    ],
)
def test_unsupported_models_that_only_the_config_shows_are_refused(config, reason):
    with pytest.raises(ValueError, match=f"a ViT with {reason}.* is not supported"):
        timm.infer(written(TINY), Hints(num_heads=3, config=config))


@pytest.mark.parametrize(
    ("added", "removed", "reason"),
    [
        ("rope.freqs", "", "rotary positions"),
        ("blocks.0.attn.norm.weight", "", "norms inside of attention or MLP"),
        ("blocks.0.attns.0.attn.qkv.weight", "blocks.0.attn.qkv", "parallel branches in a block"),
        ("blocks.0.in_proj.weight", "blocks.0.attn.qkv", "attention and MLP in parallel"),
        ("", "norm1.bias|norm2.bias", "RMSNorm"),
        ("", "attn.proj.bias|mlp.fc1.bias", "layers without bias"),
    ],
)
def test_unsupported_parts_are_refused_by_name(tmp_path, added, removed, reason):
    dropped = tuple(removed.split("|")) if removed else ()
    arrays = {k: a for k, a in written(TINY).items() if not any(part in k for part in dropped)}
    if added:
        arrays[added] = np.zeros(3, np.float32)
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"a ViT with {reason} is not supported"):
        load.read(tmp_path, num_heads=3)


def test_rotary_positions_without_arrays_are_refused(tmp_path):
    """Those of timm's eva02_tiny and eva02_small are buffers. Other parts show what they are."""
    options = dataclasses.replace(TINY, mlp="swiglu", class_token=True)
    arrays = written(options)
    for name in [name for name in arrays if name.endswith("qkv.bias")]:
        q, k, v = np.split(arrays.pop(name), 3)
        arrays |= {name.replace("qkv.bias", "q_bias"): q, name.replace("qkv.bias", "v_bias"): v}
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a ViT with rotary positions is not supported"):
        load.read(tmp_path, num_heads=3)
    with pytest.raises(ValueError, match="cannot hold a gated MLP with biases of queries and val"):
        timm.entries(dataclasses.replace(options, key_bias=False))


@pytest.mark.parametrize(("layout", "options"), [(timm, TINY), (timm_swin, SWIN)])
def test_null_arguments_are_as_none(layout, options):
    config = {"pretrained_cfg": {"input_size": [3, *options.image_size]}}
    without = layout.infer(written(options), Hints(num_heads=3, config=config))
    null = Hints(num_heads=3, config=config | {"model_args": None})
    assert layout.infer(written(options), null) == without


def test_layer_scale_of_a_beit_that_only_its_norm_shows_is_read():
    """A BEiT with absolute positions and no bias of q and v: only its norm shows what it is."""
    options = dataclasses.replace(
        TINY, pool="gap", norm_at="pooled", class_token=True, layer_scale=1e-5, qkv_bias=False
    )
    arrays = {
        k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): a
        for k, a in written(options).items()
    }
    assert layouts.find(arrays, "", path="") is timm
    read = timm.infer(timm.canonical(arrays, Hints()), Hints(num_heads=3))
    assert (read.layer_scale > 0, read.qkv_bias, read.norm_at) == (True, False, "pooled")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"architecture": "resnet50"}, "is for a resnet50, but the arrays are those of a ViT"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, "is for a swin_tiny_patch4_window7_224"),
        (
            {"model_args": {"depth": 5, "embed_dim": 99}},
            "depth 5, but the arrays have 2; embed_dim",
        ),
        ({"model_args": {"patch_size": [4, 8]}}, "patch_size [4, 8], but the arrays have 4"),
        ({"model_args": {"qkv_bias": False}}, "qkv_bias False, but the arrays have True"),
        ({"model_args": {"mlp_ratio": 4}}, "hidden width 96, but the arrays have 32"),
        ({"model_args": {"mlp_ratio": 1.34}}, ""),  # 32.16
        ({"model_args": {"mlp_ratio": 1e308, "depth": "2"}}, "depth '2', but the arrays have 2"),
        ({"num_classes": 9}, "num_classes 9, but the arrays have 5"),
        ({"num_classes": None, "model_args": {"depth": None, "patch_size": [4, 4]}}, ""),
        ({"num_classes": 5, "model_args": {"embed_dim": 24, "in_chans": 3}}, ""),
        ({"architecture": "a_model_of_mine"}, ""),
    ],
)
def test_a_config_that_contradicts_the_arrays_is_noted(tmp_path, changes, note):
    safetensors_numpy.save_file(written(TINY), tmp_path / "model.safetensors")
    config = {"architecture": "vit_tiny_patch16_224", "global_pool": "token"}
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    read = load.read(tmp_path, num_heads=3, grid=(4, 4))
    found = [text for text in read.notes if text.startswith("config.json is for ")]
    assert len(found) == bool(note)
    assert not note or note in found[0]


def test_values_that_no_file_has_are_noted(tmp_path):
    safetensors_numpy.save_file(written(TINY), tmp_path / "model.safetensors")
    target = tmp_path / "out.npz"
    report = convert(tmp_path, target, num_heads=3)
    assert (
        "note: no file beside it has activation, pool, mean, std: assumed activation 'gelu_erf'"
        in report
    )
    config = {
        "architecture": "vit_tiny_patch16_224",
        "global_pool": "token",
        "model_args": {"num_heads": 3},
        "pretrained_cfg": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "input_size": [3, 16, 16],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = load.read(tmp_path)
    assert not checkpoint.notes
    assert checkpoint.preprocessing.mean == (0.485, 0.456, 0.406)
    assert "assumed" not in convert(tmp_path, tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("wanted", "config"),
    [
        ((4, 8), {"model_args": {"window_size": [4, 8]}}),
        ((7, 7), {"architecture": "swin_tiny_patch4_window7_224"}),
        (((2, 4), (4, 2)), {"model_args": {"window_size": [[2, 4], [4, 2]]}}),
    ],
)
def test_windows_of_swin_that_are_not_square_or_shrunk(wanted, config):
    pairs = (wanted, wanted) if isinstance(wanted[0], int) else wanted
    options = dataclasses.replace(SWIN, windows=pairs)
    size = {"pretrained_cfg": {"input_size": [3, *options.image_size]}}
    read = timm_swin.infer(written(options), Hints(config=config | size))
    assert read.stage_windows == options.stage_windows
    # At another size a window is as large as it was meant to be.
    larger = dataclasses.replace(read, image_size=(112, 112))
    assert larger.stage_windows == pairs


def test_a_pool_that_arrays_do_not_show_is_noted_when_written(tmp_path):
    checkpoint = _checkpoint(dataclasses.replace(TINY, pool="gap", class_token=True))
    notes = save.write(checkpoint, tmp_path / "model.safetensors", layout="timm")
    assert notes == (
        "readers of the timm layout assume pool token, the model has gap, unless they read"
        " its config.json",
    )
    checkpoint = _checkpoint(dataclasses.replace(TINY, pool="gap", norm_at="pooled"))
    assert not save.write(checkpoint, tmp_path / "model.safetensors", layout="timm")


def test_a_file_that_needs_its_config_reads_back_with_it(tmp_path):
    options = dataclasses.replace(SWIN, windows=((2, 4), (4, 2)))
    save.write(_checkpoint(options), tmp_path / "run")
    target = tmp_path / "model.safetensors"
    report = convert(tmp_path / "run", target, layout="timm", check=True)
    assert "check: read back, logits differ by at most 0.0e+00" in report
    assert load.read(target).options.stage_windows == options.windows
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="21 relative positions do not fit a square window"):
        load.read(target)


def test_other_pools_of_swin_are_refused():
    for pool in ("max", "avgmax"):
        with pytest.raises(ValueError, match=f"global_pool='{pool}' is not supported"):
            timm_swin.infer(written(SWIN), Hints(config={"global_pool": pool}))


def hints(**fields: Any) -> Hints:
    """Hints with a config.json of timm: `architecture`, or arguments of the model."""
    name = fields.pop("architecture", "vit_tiny_patch16_224")
    return Hints(config={"architecture": name, "model_args": {"num_heads": 3} | fields})


def _checkpoint(options: Any) -> load.Checkpoint:
    """A checkpoint with random parameters."""
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    params = {k: rng.normal(size=s).astype(np.float32) * 0.1 for k, s in shapes.items()}
    expects = Preprocessing(image_size=options.image_size)
    return load.Checkpoint(options=options, params=params, preprocessing=expects)


def written(options: Any) -> dict[str, np.ndarray]:
    """The arrays of a written file with random parameters."""
    table = layouts.writer(options, "timm")
    arrays = layouts.table.write(table.entries(options), _checkpoint(options).params)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize(("eps", "clip"), [(1e-5, True), (1e-6, False), (1e-12, False)])
def test_the_epsilon_of_a_norm_before_the_blocks_is_in_the_name(tmp_path, eps, clip):
    """Only the name of a CLIP gives timm's norms 1e-5; another value is noted."""
    options = dataclasses.replace(TINY, input_norm=True, patch_bias=False, norm_eps=eps)
    notes = save.write(_checkpoint(options), tmp_path / "a", layout="timm")
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert ("clip" in config["architecture"]) == clip
    told = [note for note in notes if "norm_eps" in note and "unless they read" not in note]
    assert len(told) == (eps == 1e-12)
    assert load.read(tmp_path / "a").options.norm_eps == eps


def test_the_norm_of_one_token_has_timms_name_for_it(tmp_path):
    """Hugging Face's CLIP has it after the pool; timm's `fc_norm` would be another array."""
    options = dataclasses.replace(TINY, pool="token", norm_at="pooled")
    save.write(_checkpoint(options), tmp_path / "a", layout="timm")
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["model_args"]["fc_norm"] is False
    assert "norm.weight" in safetensors_numpy.load_file(tmp_path / "a/model.safetensors")


@pytest.mark.parametrize(
    ("name", "depths", "layers"), [("ResNet-18", (2, 2, 2, 2), None), ("ResNet-50", (1, 2), [1, 2])]
)
def test_a_resnet_with_other_stages_names_them(tmp_path, name, depths, layers):
    options = zoo.options(name, depths=depths, width=8, num_classes=3)
    save.write(_checkpoint(options), tmp_path / "a", layout="timm")
    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["model_args"].get("layers") == layers
