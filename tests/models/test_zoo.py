"""The zoo's table: published parameter counts and operations, and refused names."""

import math
import re
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.models import tiny
from vit_jax.checkpoints import surgery
from vit_jax.models import flops, zoo
from vit_jax.models.resnet import StemOptions

# With a class token, 1000 classes, at 224 pixels.
TOKEN = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "B/32": 88_224_232,
    "B/16": 86_567_656,
    "B/8": 86_576_872,
    "L/32": 306_535_400,
    "L/16": 304_326_632,
    "H/14": 632_045_800,
    "R+Ti/16": 6_337_704,
    "R26+S/32": 36_431_912,
    "R26+B/32": 101_383_976,
    "R50+B/16": 98_659_112,
    "R50+L/32": 328_994_856,
}
GAP = {
    "Ti/16": 5_717_032,
    "S/16": 22_049_896,
    "M/16": 38_836_712,
    "B/16": 86_566_120,
    "L/16": 304_324_584,
    "So400m/14": 413_595_352,
    "H/14": 632_043_240,
    "g/14": 1_012_608_616,
    "G/14": 1_844_437_352,
    "e/14": 3_807_210_728,
}
MAP = {"g/14": 1_037_857_384, "G/14": 1_882_797_416}
REPRESENTATION = {"B/16": 103_186_515, "R50+B/16": 115_277_971}  # 768 wide, 21,843 classes

PUBLISHED = [
    *((name, {"pool": "token"}, count) for name, count in TOKEN.items()),
    *((name, {"pool": "gap"}, count) for name, count in GAP.items()),
    *((name, {"pool": "map"}, count) for name, count in MAP.items()),
    *(
        (name, {"representation_size": 768, "num_classes": 21_843}, count)
        for name, count in REPRESENTATION.items()
    ),
]


@pytest.mark.parametrize(("name", "changes", "count"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, changes, count) -> None:
    shapes = surgery.shapes(zoo.options(name, **changes))
    assert sum(map(math.prod, shapes.values())) == count


def test_the_counts_cover_the_zoo() -> None:
    unpublished = {"S/32", "R50+B/32", "R50+L/16"}  # no code that was released has them
    assert {*zoo.PLAIN, *zoo.HYBRIDS} - {name for name, _, _ in PUBLISHED} == unpublished


# Counts of timm and transformers: no bias for BEiT's keys, where ours is a constant zero.
FAMILIES = {
    "DeiT-Ti/16": 5_717_416,
    "DeiT-distilled-Ti/16": 5_910_800,
    "DeiT-distilled-S/16": 22_436_432,
    "DeiT-distilled-B/16": 87_338_192,
    "DeiT-III-S/16": 22_059_496,
    "DeiT-III-B/16": 86_585_320,
    "BEiT-B/16": 86_530_984 + 12 * 768,
    "BEiT-L/16": 304_430_568 + 24 * 1024,
    "BEiT-pretrain-B/16": 91_965_776 + 12 * 768,
    "MAE-pretrain-B/16": 111_907_840,
    "R50x1": 25_549_352,
    "Swin-T": 28_288_354,
}


@pytest.mark.parametrize(("name", "count"), FAMILIES.items())
def test_models_of_the_families_have_the_parameters_of_the_originals(name, count) -> None:
    assert sum(map(math.prod, surgery.shapes(zoo.options(name)).values())) == count


TANH_TOKEN = {"activation": "gelu_tanh", "norm_eps": 1e-6, "pool": "token", "norm_at": "tokens"}
ERF_TOKEN = TANH_TOKEN | {"activation": "gelu_erf", "class_position": True, "layer_scale": 0.0}
BEIT = {"activation": "gelu_erf", "position": "none", "class_token": True, "key_bias": False}
MEAN = {"pool": "gap", "norm_at": "pooled", "class_token": True}


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("B/16", TANH_TOKEN | {"position": "learned_1d", "qkv_bias": True, "layer_scale": 0.0}),
        ("DeiT-S/16", ERF_TOKEN | {"distillation": False}),
        ("DeiT-distilled-S/16", ERF_TOKEN | {"distillation": True, "distillation_head": True}),
        ("DeiT-III-B/16", ERF_TOKEN | {"class_position": False, "layer_scale": 1e-4}),
        ("MAE-B/16", ERF_TOKEN | MEAN | {"fixed_position": False, "decoder": None}),
        ("MAE-pretrain-B/16", ERF_TOKEN | {"fixed_position": True, "num_classes": 0}),
        ("BEiT-B/16", BEIT | MEAN | {"relative_bias": "per_block", "layer_scale": 0.1}),
        ("BEiT-L/16", BEIT | MEAN | {"relative_bias": "per_block", "layer_scale": 1e-5}),
        ("BEiT-pretrain-B/16", BEIT | {"relative_bias": "shared", "mask_token": True}),
        ("BEiT-pretrain-L/16", BEIT | {"mim_classes": 8192, "layer_scale": 1e-5}),
        ("Swin-T", {"activation": "gelu_erf", "norm_eps": 1e-5, "windows": ((7, 7),)}),
    ],
)
def test_models_of_the_families_have_the_numerics_of_the_originals(name, published) -> None:
    found = zoo.options(name)
    assert {field: getattr(found, field) for field in published} == published


def test_the_numerics_of_a_bit_are_those_of_its_paper() -> None:
    stem = zoo.options("R50x3").stem
    assert (stem.root_width, stem.groups, stem.preactivation) == (192, 32, True)
    assert (stem.std_eps, stem.std_eps_in, stem.norm_eps) == (1e-10, "variance", 1e-5)
    assert (stem.padding, stem.pool_padding) == ("explicit", "lowest")
    hybrid = zoo.options("R50+B/16").stem
    assert (hybrid.std_eps, hybrid.std_eps_in, hybrid.norm_eps) == (1e-5, "std", 1e-6)
    assert (hybrid.padding, hybrid.pool_padding) == ("same", "lowest")


@pytest.mark.parametrize("name", ["MAE-pretrain-B/16", "BEiT-pretrain-B/16"])
def test_a_classifier_has_nothing_that_only_pretraining_uses(name) -> None:
    options = zoo.classifier(zoo.options(name))
    assert (options.decoder, options.fixed_position) == (None, False)
    assert (options.mask_token, options.mim_classes, options.num_classes) == (False, 0, 0)


def test_every_name_of_the_zoo_makes_a_model() -> None:
    for name in zoo.names():
        assert zoo.options(name), name
    assert zoo.options("DeiT-B/32").patch_size == (32, 32), "any patch size"


def test_models_carry_the_preprocessing_of_their_family() -> None:
    expected = {
        "Ti/16": (0.5, 0.5, 0.875, "area"),
        "DeiT-Ti/16": (0.485, 0.229, 0.875, "bicubic_antialias"),
        "DeiT-III-S/16": (0.485, 0.229, 1.0, "bicubic_antialias"),
        "BEiT-B/16": (0.5, 0.5, 0.9, "bicubic_antialias"),
        "MAE-B/16": (0.485, 0.229, 0.875, "bicubic_antialias"),
        "Swin-T": (0.485, 0.229, 0.9, "bicubic_antialias"),
        "R50x1": (0.5, 0.5, 0.875, "area"),
    }
    for name, values in expected.items():
        found = zoo.preprocessing(name, image_size=(32, 48))
        assert (found.mean[0], found.std[0], found.crop_pct, found.interpolation) == values
        assert found.image_size == (32, 48)
    for name, side, crop_pct in (
        *(("BEiT-B/16", 383, 0.9), ("BEiT-B/16", 384, 1.0), ("DeiT-B/16", 384, 0.875)),
        *(("MAE-H/14", 224, 0.875), ("MAE-H/14", 448, 1.0), ("Swin-B", 384, 1.0)),
    ):
        assert zoo.preprocessing(name, image_size=(side, side)).crop_pct == crop_pct
    model = zoo.create("DeiT-Ti/16", image_size=(16, 32), depth=1)
    assert model.preprocessing == zoo.preprocessing("DeiT-Ti/16", image_size=(16, 32))


# "How to train your ViT?", table 2: GFLOPs at 224 pixels.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        *(("Ti/16", 2.5), ("S/16", 9.2), ("B/16", 35.1), ("L/16", 122.9), ("B/32", 8.7)),
        ("Swin-T", 9.0),  # Swin's paper, table 1: 4.5 G multiply-adds
    ],
)
def test_operations_are_the_published_ones(name, published) -> None:
    assert flops.forward(zoo.options(name)) / 1e9 == pytest.approx(published, rel=0.015)


def test_flops_count_the_attention_of_cudnn() -> None:
    half = zoo.options("Ti/16", dtype="bfloat16")
    counted = flops.forward(zoo.options("Ti/16"))
    assert flops.forward(zoo.change(half, attention="cudnn")) == flops.forward(half) == counted


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pool": "map", "representation_size": 24, "position": "relative"},
        {"image_size": (64, 96), "patch_size": (1, 2), "stem": StemOptions(num_layers=(1, 2))},
        {"mlp": "swiglu", "distillation": True},
    ],
)
def test_operations_are_those_the_compiler_counts(changes) -> None:
    """Without a scan, whose body XLA counts only once. Elementwise operations add a few."""
    options = tiny.options(**({"depth": 1, "width": 128, "mlp_dim": 256} | changes))
    graphdef, params = zoo.abstract(options)
    image = jax.ShapeDtypeStruct((1, *options.image_size, 3), "float32")
    forward = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    cost: Any = forward.lower(params, image).cost_analysis()
    ours = flops.forward(options)
    # The compiler does not count a convolution's multiplications with padding.
    assert 0.99 * ours < cost["flops"] < 1.25 * ours


def test_an_unknown_name_names_the_nearest() -> None:
    for wrong, near in (("B17", "B/17"), ("R50+B/61", "R50+B/16")):
        with pytest.raises(ValueError, match=re.escape(f"'{wrong}': did you mean '{near}'")):
            zoo.options(wrong)
    for wrong in ("", "/", "B/", "B/0", "B/-1", "B/x", "/16", "R50+H/16", "b/61"):
        with pytest.raises(ValueError, match="unknown model"):
            zoo.options(wrong)


def test_any_patch_size_can_be_made() -> None:
    assert zoo.options("H/16").patch_size == (16, 16)
    assert zoo.options("Ti/7").grid == (32, 32)
    assert zoo.options("B/16", patch_size=(16, 32)).grid == (14, 7)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown model option 'dropuot': did you mean 'dropout'"):
        zoo.options("B/16", dropuot=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (16, 30)}, "image width 30 is not a multiple of the patch of 8.*use 32"),
        ({"image_size": (3, 24)}, "image height 3 is not a multiple of the patch of 8.*use 8"),
        ({"image_size": 16}, "image_size is 16: give .height, width."),
        ({"patch_size": (0, 8)}, r"patch_size is \(0, 8\).*positive"),
        ({"num_heads": 5}, "width 32 does not divide into 5 heads"),
        ({"num_heads": 0}, "num_heads is 0: it must be at least 1"),
        ({"width": -32}, "width is -32"),
        ({"dropout": 1.0}, r"dropout is 1.0: it must be in \[0, 1\)"),
        ({"pool": "cls"}, "pool is 'cls': choose one of 'token', 'gap', 'token_gap', 'map'"),
        ({"position": "relative", "position_at": "every_block"}, "does not apply, use 'input'"),
        ({"position": "sincos2d", "position_at": "every_block"}, "no table per block"),
        ({"position": "learned_2d", "width": 30, "num_heads": 3}, "multiple of 4"),
        (
            {"stem": StemOptions(num_layers=(1, 1))},
            "image height 16 is not a multiple of the patch of 64 pixels: use 64",
        ),
        (  # a stem pads such an image, and has more rows than the options
            {"stem": StemOptions(), "image_size": (70, 64), "drop_edges": True},
            "image height 70 is not a multiple of the patch of 32 pixels: use 64",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.options(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: zoo.options("Swin-T", drop_path=1.0), r"drop_path is 1.0: it must be in \[0, 1\)"),
        (lambda: zoo.options("Swin-T", dropout=1.5), r"dropout is 1.5: it must be in \[0, 1\)"),
        (lambda: zoo.options("Swin-T", norm_eps=-1.0), "norm_eps is -1.0: it must be in"),
        (lambda: zoo.options("Swin-T", activation="gelu_tahn"), "'gelu_tahn': choose one of 'gelu"),
        (lambda: zoo.options("Swin-T", padding="some"), "padding is 'some': choose one of"),
        (lambda: zoo.options("Swin-T", remat="some"), "remat is 'some': choose one of"),
        (lambda: zoo.options("Swin-T", position="learned"), "position is 'learned': choose one of"),
        (
            lambda: zoo.options("ResNet-18", root="cifar10"),
            "'cifar10': choose one of 'imagenet', 'c",
        ),
        (lambda: zoo.options("RegNetY-160", dtype="float16"), "dtype is 'float16': choose one of"),
        (lambda: zoo.options("R50x1", dtype="half"), "dtype is 'half': choose one of"),
        (lambda: StemOptions(padding="some"), "padding is 'some': choose one of"),  # type: ignore[arg-type]
        (lambda: StemOptions(std_eps_in="mean"), "std_eps_in is 'mean': choose one of"),  # type: ignore[arg-type]
        (lambda: StemOptions(std_eps=-1.0), r"std_eps is -1.0: it must be in \[0, 1\)"),
    ],
)
def test_every_family_refuses_choices_and_rates_that_there_are_not(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_new_model_is_reproducible_and_its_head_zero_but_for_the_bias() -> None:
    make = jax.jit(
        lambda seed: nnx.state(
            zoo.init(tiny.options(head_bias=-10.0, depth=2), key=jax.random.key(seed))
        )
    )
    first, again, other = make(0), make(0), make(1)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, again))
    kernel = first["encoder"]["blocks"]["attention"]["qkv"]["kernel"][...]
    assert not (kernel == other["encoder"]["blocks"]["attention"]["qkv"]["kernel"][...]).any()
    assert not (kernel[0] == kernel[1]).any(), "layers must be drawn apart"
    # Query, key and value: a separate Xavier kernel each.
    assert abs(kernel).max() == pytest.approx(math.sqrt(6 / (32 + 32)), rel=0.02)
    assert not first["head"]["kernel"][...].any()
    assert (first["head"]["bias"][...] == -10).all()
    assert not first["encoder"]["cls"][...].any()
    assert first["encoder"]["position"][...].std() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("name", ["R+Ti/16", "Swin-T", "R50x1"])
def test_a_new_model_has_the_keys_that_flax_draws(name) -> None:
    """The stream of keys in `zoo.init` is faster to trace, and nothing else."""
    options = zoo.options(name)
    module = zoo.family(options).module

    def programs(make: Any) -> str:
        return str(jax.make_jaxpr(lambda key: nnx.state(make(key)))(jax.random.key(0)))

    ours = programs(lambda key: zoo.init(options, key=key))
    assert ours == programs(lambda key: module(options, rngs=nnx.Rngs(params=key)))


@pytest.mark.parametrize(
    "options",
    [
        tiny.options(head_bias=-5.0, distillation=True, registers=2, mask_token=True, depth=2),
        tiny.options(position_at="every_block", relative_bias="shared", depth=2),
        tiny.options(position="relative", depth=2),
        zoo.options("Swin-T", image_size=32, width=24, depths=(1, 1), num_heads=(2, 4),
                    windows=((4, 4),), head_bias=-5.0),
    ],
)  # fmt: skip
def test_new_tables_and_tokens_are_small_and_heads_are_their_bias(options) -> None:

    @jax.jit
    def small():
        state = nnx.state(zoo.init(options, key=jax.random.key(0)))
        flat = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
        return {p: a for p, a in flat.items() if p.startswith("head") or "kernel" not in p}

    for path, array in small().items():
        if path == "encoder/relative_bias" or path.endswith(
            ("cls", "head/kernel", "distillation/kernel")
        ):
            assert not array.any(), path
        elif path.startswith("head"):
            assert (array == options.head_bias).all(), path
        elif path.endswith(("position", "relative", "relative_bias", "registers")):
            assert array.std() == pytest.approx(0.02, rel=0.3), path
        elif path in ("encoder/distillation", "encoder/mask"):
            assert array.std() == pytest.approx(0.02, rel=0.5), path


def test_new_kernels_are_xavier_uniform_and_biases_almost_zero() -> None:
    options = tiny.options(depth=2, pool="map", num_classes=0)
    state = jax.jit(lambda: nnx.state(zoo.init(options, key=jax.random.key(0))))()
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
    sizes = {  # inputs and outputs of a layer as a matrix
        **{"attention/qkv/kernel": (32, 32), "attention/out/kernel": (32, 32)},
        **{"mlp/fc1/kernel": (32, 48), "mlp/fc2/kernel": (48, 32), "pool/probe": (1, 32)},
    }
    found = 0
    for path, array in flat.items():
        for name in (name for name in sizes if path.endswith(name)):
            most = math.sqrt(6 / sum(sizes[name]))
            assert abs(array).max() == pytest.approx(most, rel=0.1), path
            assert array.std() == pytest.approx(most / math.sqrt(3), rel=0.2), path
            found += 1
        if path.endswith(("fc1/bias", "fc2/bias")):
            assert 1e-7 < array.std() < 1e-5, path
    assert found == 2 * 4 + 1, "of the blocks and of the pool"
    query, key, value = np.moveaxis(flat["encoder/blocks/attention/qkv/kernel"], 2, 0)
    for one, other in ((query, key), (key, value), (query, value)):
        assert not np.allclose(one, other, atol=1e-3), "each is drawn on its own"
