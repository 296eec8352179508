"""A written file reads back equal in any layout: options, preprocessing, names and parameters.

Neither the arrays of a layout nor its JSON fields specify the whole model: the rest is under
the key `vit_jax` of config.json.
"""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import safetensors

import vit_jax
from vit_jax.checkpoints import check, layouts, load, save, surgery
from vit_jax.checkpoints.convert import convert
from vit_jax.models import zoo
from vit_jax.models.bit import RESNET_V2, BiTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions
from vit_jax.models.swin import SwinOptions

GRIDS = [(4, 4), (3, 5), (2, 8), (1, 15), (14, 12), (1, 5)]
BEIT = {"key_bias": False, "position": "none", "layer_scale": 0.1, "class_token": True}
FAMILIES: dict[str, dict[str, Any]] = {
    "token": {},
    "exact GELU": {"activation": "gelu_erf", "norm_eps": 1e-5},
    "quick GELU": {"activation": "gelu_quick"},
    "token without position": {"class_position": False},
    "mean": {"pool": "gap"},
    "mean beside a token": {"pool": "gap", "class_token": True},
    "norm after the mean": {"pool": "gap", "norm_at": "pooled"},
    "fine-tuned MAE": {"pool": "gap", "norm_at": "pooled", "class_token": True},
    "attention pool": {"pool": "map"},
    "registers": {"registers": 4, "class_position": False},
    "registers with positions": {"registers": 4, "register_position": True},
    "registers without token": {"registers": 1, "pool": "gap"},
    "distillation": {"distillation": True},
    "distillation without positions": {"distillation": True, "class_position": False},
    "distillation, one head": {"distillation": True, "distillation_head": False},
    "DeiT III": {"class_position": False, "layer_scale": 1e-4},
    "layer scale": {"layer_scale": 1e-6},
    "BEiT": BEIT | {"relative_bias": "per_block", "pool": "gap", "norm_at": "pooled"},
    "BEiT's pretraining": BEIT
    | {"relative_bias": "shared", "mask_token": True, "mim_classes": 7, "num_classes": 0},
    "BEiT with positions": {"key_bias": False, "relative_bias": "per_block"},
    "MAE": {"class_token": True, "num_classes": 0, "fixed_position": True,
            "decoder": DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2)},
    "MAE without biases": {"class_token": True, "num_classes": 0, "fixed_position": True,
                           "decoder": DecoderOptions(width=16, depth=1, mlp_dim=32, num_heads=2),
                           "qkv_bias": False},
    "fixed positions": {"position": "sincos2d"},
    "no positions": {"position": "none"},
    "pre-logits": {"representation_size": 8},
    "no head": {"num_classes": 0},
    "CLIP": {"input_norm": True, "patch_bias": False},
    "norms in attention": {"qk_norm": True},
    "gated": {"mlp": "swiglu"},
    "hybrid": {"patch_size": (1, 1), "stem": StemOptions(num_layers=(1,), root_width=32, groups=8)},
    "one channel": {"channels": 1},
    "five channels": {"channels": 5},
    "edges that are dropped": {"drop_edges": True},
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "Swin": SwinOptions(image_size=(56, 28), windows=((7, 7),), width=24, depths=(1, 1),
                        num_heads=(2, 4), num_classes=3),
    "Swin, windows": SwinOptions(image_size=(32, 64), windows=((2, 4), (4, 2)), width=24,
                                 depths=(1, 1), num_heads=(2, 4), num_classes=3),
    "BiT": BiTOptions(image_size=(32, 48), num_classes=3, stem=dataclasses.replace(
        RESNET_V2, num_layers=(1, 1), root_width=32, groups=8)),
    "BiT v1": BiTOptions(image_size=(32, 48), num_classes=3, stem=StemOptions(
        num_layers=(1, 1), root_width=32, groups=8)),
}  # fmt: skip
IMAGES = itertools.cycle(
    [
        {},
        {
            "crop_pct": 1.0,
            "interpolation": "bicubic_antialias",
            "fit": "squash",
            "mean": (0.1, 0.2, 0.3),
        },
        {
            "crop_pct": 0.9,
            "interpolation": "lanczos_antialias",
            "fit": "crop_floor",
            "std": (0.3, 0.2, 0.1),
        },
    ]
)
SUFFIXES = {"vit_jax": ".npz", "big_vision": ".npz", "timm": ".safetensors", "hf": ""}
REFUSED = (
    "layout cannot hold|cannot be written|needs a class token|can be written for|"
    "transformers cannot hold|transformers' BEiT cannot|"
    "no representation layer"
)
FREE = {"dropout", "attention_dropout", "drop_path", "drop_path_grows", "dtype", "attention",
        "remat", "unroll", "head_bias"}  # fmt: skip


def checkpoint(options: Any, **images: Any) -> load.Checkpoint:
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    if not getattr(options, "key_bias", True):
        params["encoder/blocks/attention/qkv/bias"][:, 1] = 0
    return load.Checkpoint(
        options=options,
        params=params,
        preprocessing=Preprocessing(image_size=options.image_size, **images).for_channels(
            options.channels
        ),
        class_names=("ant", "bee", "cow") if options.num_classes else (),
    )


def vit(grid: tuple[int, int] = (14, 12), **changes: Any) -> Any:
    edge = 1 if changes.get("drop_edges") else 0
    sizes: dict[str, Any] = {"patch_size": (4, 4), "width": 24, "depth": 1, "mlp_dim": 32}
    sizes |= {"num_heads": 3, "num_classes": 3, "image_size": (4 * grid[0] + edge, 4 * grid[1])}
    return zoo.of_parts(**sizes | changes)


def models():
    grids = itertools.cycle(GRIDS)
    for name, changes in FAMILIES.items():
        grid = next(grids)
        yield pytest.param(vit(grid, **changes), id=f"{name}, {grid[0]}x{grid[1]}")
        if {"registers", "distillation", "class_position", "relative_bias"} & changes.keys():
            yield pytest.param(vit(**changes), id=f"{name}, 14x12")
    for name, options in OTHERS.items():
        yield pytest.param(options, id=name)


@pytest.mark.parametrize("options", list(models()))
def test_a_model_reads_back_equal_from_every_layout_that_holds_it(options, tmp_path):
    written = 0
    for layout in layouts.LAYOUTS:
        original = checkpoint(options, **next(IMAGES))
        path = tmp_path / f"{layout}{SUFFIXES.get(layout, '.pth')}"
        try:
            save.write(original, path, layout=layout)
        except ValueError as error:
            assert any(part in str(error) for part in REFUSED.split("|")), error
            continue
        written += 1
        read = load.read(path)
        about = f"in the {layout} layout"
        assert (read.layout, read.notes) == (layout, ()), about
        assert read.preprocessing == original.preprocessing, about
        assert read.class_names == original.class_names, about
        assert meaning(read.options) == meaning(options), about
        assert read.params.keys() == original.params.keys()
        moved = layout == "big_vision" or layout == "deit" and options.layer_scale
        if moved and getattr(options, "class_position", False):
            assert_same_tokens(read.params, original.params)
            continue
        for name, array in original.params.items():
            np.testing.assert_array_equal(read.params[name], array, about)
    assert written, "no layout holds it"


def meaning(options: Any) -> dict[str, Any]:
    """The options that change what a model computes."""
    fields = {k: v for k, v in vars(options).items() if k not in FREE}
    if "class_token" in fields:
        fields["class_token"] = options.has_class_token
    return fields


def assert_same_tokens(read: Any, original: Any) -> None:
    """The big_vision layout has no row for the class token: it is added to the token."""
    if "encoder/cls" not in original or "encoder/position" not in original:
        return
    first = [
        params["encoder/cls"][0, 0] + params["encoder/position"][0, 0]
        for params in (read, original)
    ]
    np.testing.assert_array_equal(*first)
    np.testing.assert_array_equal(
        read["encoder/position"][:, 1:], original["encoder/position"][:, 1:]
    )


def test_files_in_one_folder_keep_their_own_configs(tmp_path):
    sizes = {"a.npz": (3, 5), "b.npz": (2, 8), "c.safetensors": (14, 12), "d.pth": (1, 15)}
    kinds = {".npz": "vit_jax", ".safetensors": "timm", ".pth": "deit"}
    for _ in range(2):  # the second time over the first
        for name, grid in sizes.items():
            save.write(checkpoint(vit(grid)), tmp_path / name, layout=kinds[name[1:]])
    assert {name: load.read(tmp_path / name).options.grid for name in sizes} == sizes
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".json") == [
        *("b.npz.config.json", "c.safetensors.config.json", "config.json", "d.pth.config.json")
    ]
    # Another file of the folder is not taken for one of ours, a renamed one is.
    (tmp_path / "b.npz").rename(tmp_path / "e.npz")
    read = load.read(tmp_path / "e.npz")
    assert any("16 positions are read as 4x4" in note for note in read.notes)
    (tmp_path / "a.npz").rename(tmp_path / "f.npz")
    assert load.read(tmp_path / "f.npz").options.grid == (3, 5)


def test_a_config_that_we_did_not_write_is_kept(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "preprocessor_config.json").write_text('{"do_pad": true}')
    save.write(checkpoint(vit()), tmp_path / "a.safetensors", layout="timm")
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "llama"}
    assert load.read(tmp_path / "a.safetensors").options.grid == (14, 12)


def test_the_config_of_a_run_is_not_used_for_a_file_in_its_folder(tmp_path):
    original = checkpoint(vit((4, 4)))
    save.write(original, tmp_path / "run")
    save.write(original, tmp_path / "a.npz", layout="vit_jax")
    (tmp_path / "a.npz").rename(tmp_path / "run/a.npz")
    assert "because no file beside it gives a size" in "".join(
        load.read(tmp_path / "run/a.npz").notes
    )


def test_a_users_change_in_the_config_is_read(tmp_path):
    save.write(checkpoint(vit()), tmp_path / "m", layout="timm")
    path = tmp_path / "m/config.json"
    config = json.loads(path.read_text())
    config["label_names"] = ["x", "y", "z"]
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    path.write_text(json.dumps(config))
    model: Any = vit_jax.load(tmp_path / "m")
    assert model.class_names == ("x", "y", "z")
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)


def test_timms_config_has_options_that_names_do_not_show(tmp_path):
    options = vit(activation="gelu_tanh", registers=2, class_position=False, layer_scale=1e-5)
    save.write(checkpoint(options, mean=(0.1, 0.2, 0.3)), tmp_path / "m", layout="timm")
    config = json.loads((tmp_path / "m/config.json").read_text())
    assert config["label_names"] == ["ant", "bee", "cow"]
    assert (config["num_classes"], config["num_features"]) == (3, 24)
    expects, arguments = config["pretrained_cfg"], config["model_args"]
    assert expects["input_size"] == [3, 56, 48]
    assert (expects["mean"], expects["classifier"]) == ([0.1, 0.2, 0.3], "head")
    wanted = {"img_size": [56, 48], "act_layer": "gelu_tanh", "no_embed_class": True}
    wanted |= {"reg_tokens": 2, "init_values": 1e-5, "embed_dim": 24, "depth": 1, "num_heads": 3}
    assert arguments == arguments | wanted


def test_another_gelu_is_noted_and_the_check_shows_no_difference(tmp_path):
    save.write(checkpoint(vit((4, 4), activation="gelu_tanh")), tmp_path / "run")
    report = convert(tmp_path / "run", tmp_path / "m", layout="timm", check=True)
    compute = "note: readers of the timm layout assume activation gelu_erf, the model has gelu_tanh"
    assert f"{compute}, unless they read its config.json" in report
    assert "check: read back, logits differ by at most 0.0e+00" in report


def test_layouts_ignore_how_a_model_is_trained_and_run(tmp_path):
    how: dict[str, Any] = {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.1}
    how |= {"head_bias": -1.0, "remat": "full", "unroll": 2, "dtype": "bfloat16"}
    original = checkpoint(vit((4, 4), activation="gelu_erf", attention="xla", **how))
    for layout in ("timm", "deit", "mae", "hf"):
        path = tmp_path / f"{layout}{SUFFIXES.get(layout, '.pth')}"
        assert save.write(original, path, layout=layout) == (), "no reader computes otherwise"
        assert meaning(load.read(path).options) == meaning(vit((4, 4), activation="gelu_erf"))


def test_options_that_readers_assume_differently_are_noted(tmp_path):
    stem = dataclasses.replace(StemOptions(num_layers=(1,), root_width=32, groups=8), std_eps=1e-3)
    options = vit((4, 4), patch_size=(1, 1), stem=stem, norm_eps=1e-4)
    notes = save.write(checkpoint(options), tmp_path / "m.npz", layout="vit_jax")
    assert "readers of the vit_jax layout assume stem std_eps 1e-05, the model has 0.001" in notes
    assert "readers of the vit_jax layout assume norm_eps 1e-06, the model has 0.0001" in notes


def test_a_safetensors_file_has_default_permissions_and_pytorch_metadata(tmp_path):
    (tmp_path / "other").touch()
    for layout, suffix in (("timm", ".safetensors"), ("deit", ".pth"), ("vit_jax", ".npz")):
        save.write(checkpoint(vit((4, 4))), tmp_path / f"m{suffix}", layout=layout)
        mode = (tmp_path / f"m{suffix}").stat().st_mode
        assert mode == (tmp_path / "other").stat().st_mode
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_check_reports_the_difference_of_the_model_read_back(tmp_path):
    original = checkpoint(vit((3, 5)))
    other = dict(original.params)
    other["head/bias"] = original.params["head/bias"] - np.float32(4)
    further = dataclasses.replace(original, params=other)
    for one, two in ((original, further), (further, original)):
        assert "logits differ by at most 4.0e+00 (the largest" in check.compare(one, two)
    fewer = dataclasses.replace(original.options, num_classes=0)
    headless = checkpoint(fewer)
    differ = "differ by at most everything: shapes are (2, 3) and (2, 24)"
    assert differ in check.compare(original, headless)


@pytest.mark.parametrize("layout", ["timm", "deit", "vit_jax", "hf"])
def test_a_check_reads_back_a_model_with_an_unknown_number_of_heads(tmp_path, layout):
    save.write(
        checkpoint(vit((4, 4), activation="gelu_erf", width=40, num_heads=5)), tmp_path / "run"
    )
    target = tmp_path / f"m{SUFFIXES.get(layout, '.pth')}"
    report = convert(tmp_path / "run", target, layout=layout, check=True)
    assert "check: read back, logits differ by at most 0.0e+00" in report


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "^$"),
        ([1], "vit_jax must be an object with the fields"),
        ({"other": 1}, "vit_jax must be an object with the fields"),
        ({"file": 7}, r"vit_jax\.file must be a text, got 7"),
        ({"file": "../x"}, "must be the name of a file"),
        ({"options": [1]}, r"vit_jax\.options must be an object"),
        (
            {"options": {"activation": "relu"}},
            "vit_jax.options.activation is 'relu': choose one of",
        ),
        ({"options": {"other": 1}}, "unknown config field config.json's vit_jax.options.other"),
        ({"options": {"image_size": [7]}}, "needs 2 values"),
        ({"options": {"depth": 3}}, "misfits|missing"),
        ({"layout": "other"}, "unknown layout 'other'"),
        ({"options": {"position": "sincos2d", "image_size": [10**9, 10**9]}}, "must be from 0 to"),
        ({"options": {"width": 10**9}}, "must be from 0 to"),
        ({"preprocessing": {"crop_pct": "x"}}, "vit_jax.preprocessing.crop_pct must be float"),
    ],
)
def test_a_damaged_vit_jax_entry_is_refused_in_one_line(tmp_path, entry, message):
    save.write(checkpoint(vit()), tmp_path / "m", layout="timm")
    path = tmp_path / "m/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vit_jax": entry}))
    if message == "^$":
        assert load.read(tmp_path / "m").options.grid == (14, 12)
        return
    with pytest.raises(ValueError, match=message) as error:
        load.read(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_a_plain_vit_under_the_key_model_is_read_as_deit_with_a_note(tmp_path, caplog):
    for name, changes, family in (("a", {}, "DeiT"), ("b", {"num_classes": 0}, "MAE")):
        path = tmp_path / f"{name}.pth"
        save.write(
            checkpoint(vit((4, 4), activation="gelu_erf", **changes)), path, layout=family.lower()
        )
        (tmp_path / "config.json").unlink()
        vit_jax.load(path, num_heads=3)
        report = convert(path, tmp_path / f"{name}.safetensors", layout="timm", num_heads=3)
        for message in (
            "no file beside it has activation, mean, std: assumed activation 'gelu_erf', mean (",
            f"it is read as a {family} model, but models of timm and others have the same names",
        ):
            assert message in caplog.text
            assert f"note: {message}" in report
        (tmp_path / "config.json").unlink()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid_mean"])
def test_every_form_of_a_model_says_what_it_was_trained_with(tmp_path, kind) -> None:
    model = vit_jax.create("Ti/16", image_size=32, num_classes=3)
    model.cross_entropy = kind
    first, last = tmp_path / "run", tmp_path / "last.npz"
    vit_jax.save(model, first)
    forms = {"other.npz": "vit_jax", "timm.safetensors": "timm", "hf": "hf", "again": ""}
    for name, layout in forms.items():
        convert(first, tmp_path / name, layout=layout)
        wanted = "" if kind == "softmax" and layout else kind  # which readers assume
        assert vit_jax.load(tmp_path / name).cross_entropy == wanted, name
    convert(tmp_path / "hf", last)
    assert load.read(last).cross_entropy == ("" if kind == "softmax" else kind)
    assert model.resized(64).cross_entropy == kind
    assert vit_jax.load(last, num_classes=5).cross_entropy == ""  # its head is new


def test_a_hugging_face_model_for_several_labels_has_sigmoids(tmp_path) -> None:
    vit_jax.save(
        vit_jax.create("Ti/16", image_size=32, num_classes=3), tmp_path / "hf", layout="hf"
    )
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert vit_jax.load(tmp_path / "hf").cross_entropy == ""
    several = config | {"problem_type": "multi_label_classification"}
    (tmp_path / "hf/config.json").write_text(json.dumps(several))
    assert vit_jax.load(tmp_path / "hf").cross_entropy == "sigmoid_mean"


def test_an_unknown_cross_entropy_is_refused(tmp_path) -> None:
    path, model = tmp_path / "model.npz", vit_jax.create("Ti/16", image_size=32, num_classes=3)
    vit_jax.save(model, path)
    model.cross_entropy = "hinge"
    with pytest.raises(ValueError, match="model's cross_entropy is 'hinge': choose one of"):
        vit_jax.save(model, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = json.loads((tmp_path / "config.json").read_text())
    config["vit_jax"]["cross_entropy"] = "hinge"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cross_entropy is 'hinge': choose one of") as error:
        vit_jax.load(path)
    assert "\n" not in str(error.value)
