"""Names of models as papers, timm, Hugging Face and torchvision write them."""

import math
import re

import jax
import pytest

import vit_jax
from vit_jax.config import resolve
from vit_jax.models import zoo
from vit_jax.models.aliases import Alias

TIMM = {"activation": "gelu_erf"}
HUGGING_FACE = {"activation": "gelu_erf", "norm_eps": 1e-12}
STEM = {"std_eps": 1e-8, "std_eps_in": "variance", "norm_eps": 1e-5}
BIT = {"stem": {"std_eps": 1e-8, "pool_padding": "zero"}}


@pytest.mark.parametrize(
    ("name", "meant", "fields"),
    [
        *((name, "B/16", {}) for name in ("ViT-B/16", "ViT-B_16", "B16", "b16", "b/16", "vitb16")),
        *((name, "g/14", {}) for name in ("ViT-g/14", "ViT-g-14")),
        *((name, "G/14", {}) for name in ("ViT-G/14", "G14")),
        *((name, "R50+B/16", {}) for name in ("R50+ViT-B_16", "R50-ViT-B/16", "r50+b16")),
        *((name, "R50x1", {}) for name in ("BiT-M-R50x1", "r50x1")),
        *((name, "Swin-T", {}) for name in ("swin-t", "swin_tiny_patch4_window7_224")),
        *((name, "ResNet-50", {}) for name in ("resnet50", "ResNet50", "microsoft/resnet-50")),
        *((name, "RegNetY-160", {}) for name in ("regnety_160", "regnet_y_16gf")),
        ("deit3-b16", "DeiT-III-B/16", {}),
        ("vit_b_16", "B/16", TIMM),
        ("vit_base_patch16_224", "B/16", TIMM),
        ("timm/vit_small_patch32_384.augreg_in1k", "S/32", TIMM),
        ("vit_small_patch8_224", "S/8", TIMM),
        ("vit_giant_patch14_224", "g/14", TIMM),
        ("vit_base_r50_s16_384", "R50+B/16", TIMM | {"stem": STEM}),
        ("vit_tiny_r_s16_p8_224", "R+Ti/16", TIMM | {"stem": STEM}),
        ("resnetv2_50x1_bit.goog_in21k", "R50x1", BIT),
        ("deit_tiny_patch16_224", "DeiT-Ti/16", {}),
        ("deit3_small_patch16_224", "DeiT-III-S/16", {"layer_scale": 1e-6}),
        ("beit_base_patch16_224", "BEiT-B/16", {}),
        ("swin_base_patch4_window12_384", "Swin-B", {"windows": ((12, 12),)}),
        ("swin_t", "Swin-T", {"padding": "before_shift"}),
        ("google/vit-base-patch16-224", "B/16", HUGGING_FACE),
        ("google/vit-huge-patch14-224-in21k", "H/14", HUGGING_FACE),
        ("facebook/deit-base-distilled-patch16-384", "DeiT-distilled-B/16", {"norm_eps": 1e-12}),
        ("microsoft/beit-base-patch16-224-pt22k", "BEiT-pretrain-B/16", {"norm_eps": 1e-12}),
        ("microsoft/beit-base-patch16-224-pt22k-ft22k", "BEiT-B/16", {"norm_eps": 1e-12}),
        ("facebook/vit-mae-huge", "MAE-pretrain-H/14", {"norm_eps": 1e-12}),
    ],
)
def test_a_name_of_another_library_is_the_model_of_that_library(name, meant, fields) -> None:
    alias = zoo.understood(name)
    assert (alias.name, alias.fields) == (meant, fields)
    options = zoo.options(name)
    for field, value in fields.items():
        given = {k: getattr(options.stem, k) for k in value} if field == "stem" else None
        assert (given or getattr(options, field)) == value
    assert options.image_size == (alias.side or 224,) * 2


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vit_tiny_patch16_384", 5_790_376),
        ("vit_base_r50_s16_384", 98_950_952),
        ("deit3_medium_patch16_224", 38_849_512),
        ("deit_base_distilled_patch16_384", 87_630_032),
        ("swin_base_patch4_window12_384", 87_903_584),
        ("resnetv2_50x1_bit", 25_549_352),
    ],
)
def test_the_model_of_a_timm_name_has_as_many_parameters_as_timms(name, parameters) -> None:
    """Numbers of timm 1.0.31, `sum(p.numel() for p in timm.create_model(name).parameters())`."""
    _, shapes = zoo.abstract(zoo.options(name))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == parameters


@pytest.mark.parametrize(
    ("name", "near"),
    [
        *((name, "'g/14', 'G/14'") for name in ("g14", "vit_g_14", "vit-g/14")),
        *((f"vit_base_patch16_{word}224", "'B/16'") for word in ("clip_", "siglip_", "gap_")),
        ("vit_base_patch16_224_miil", "'B/16'"),
        ("vit_base_patch14_dinov2", "'B/14'"),
        ("vit_so400m_patch14_siglip_224", "'So400m/14'"),
        ("openai/clip-vit-base-patch16", "'B/16'"),
        ("regnety_016", "'RegNetY-160'"),
        ("vit_base_distilled_patch16_224", "'DeiT-distilled-B/16'"),
        ("swin_s3_tiny_224", "'Swin-"),
        *((f"vit_bas_patch16{size}", "'vit_base_patch16'") for size in ("", "_224")),
        ("google/vit-bass-patch16-224", "'vit_base_patch16'"),
        ("deit_smal_patch16_224.fb_in1k", "'deit_small_patch16'"),
    ],
)
def test_a_name_that_may_mean_another_model_is_refused_with_the_nearest(name, near) -> None:
    with pytest.raises(
        ValueError, match=f"unknown model {re.escape(repr(name))}: did you mean {near}"
    ):
        zoo.understood(name)


def test_every_name_of_the_zoo_is_itself() -> None:
    assert [zoo.understood(name) for name in zoo.names()] == [Alias(name=n) for n in zoo.names()]


def test_create_logs_the_model_its_options_and_another_size(caplog) -> None:
    sizes = {"width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 1}
    model = vit_jax.create("vit_tiny_patch16_384", image_size=32, **sizes)
    assert (model.options.activation, model.options.image_size) == ("gelu_erf", (32, 32))
    assert "Ti/16 with activation='gelu_erf', as in timm; its name has 384 pixels" in caplog.text
    assert "image_size is 32x32; it has new weights" in caplog.text
    caplog.clear()
    assert vit_jax.create("Ti/16", **sizes).options.image_size == (224, 224)
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_b_16", 0.485),  # torchvision's ViTs are trained on other values than the paper's
        *(("vit_base_patch16_224.mae", 0.485), ("vit_base_patch16_224.augreg_in21k", 0.5)),
        *(("vit_base_patch16_224", 0.5), ("B/16", 0.5), ("deit_base_patch16_224", 0.485)),
    ],
)
def test_a_name_has_the_value_range_of_its_library_and_a_run_says_so(name, mean, caplog) -> None:
    assert zoo.preprocessing(name, image_size=(224, 224)).mean[0] == mean
    config = resolve({"model": {"name": name}})
    other = zoo.preprocessing(zoo.understood(name).name, image_size=(224, 224)).mean[0] != mean
    assert config.data.mean[:1] == ((mean,) if other else ())
    assert (f"mean=({mean}, 0.456, 0.406)" in caplog.text) == other
    started = resolve({"model": {"name": name}, "init_from": "runs/a"})
    assert started.data.mean == (), "that of the checkpoint"
    given = resolve({"model": {"name": name}, "data": {"mean": (0.1,) * 3, "std": (0.2,) * 3}})
    assert given.data.mean == (0.1, 0.1, 0.1)


def test_a_file_that_is_not_there_but_has_the_name_of_a_model_is_explained(tmp_path) -> None:
    with pytest.raises(
        ValueError, match="no checkpoint at vit_b_16: it is a name of the model B/16"
    ):
        vit_jax.load("vit_b_16")
    with pytest.raises(ValueError, match="no checkpoint at .*/gone.npz$"):
        vit_jax.load(tmp_path / "gone.npz")
