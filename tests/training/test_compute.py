"""The compute options that are "auto": their choice for the devices and the sizes of a run."""

import pytest

from tests.parallel import pods
from tests.training.test_design import FACTS, one_device, small
from vit_jax.config import MeshConfig
from vit_jax.models import zoo
from vit_jax.objectives.mae import masked_autoencoder
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import compute
from vit_jax.training.design import design

B16 = zoo.options("B/16", dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "devices", "chosen"),
    [
        ({}, {"kind": "TPU v5 lite", "images": 64}, "lean"),
        ({}, {"kind": "TPU v5 lite", "images": 512}, "full"),
        ({}, {"kind": "TPU v5", "images": 64}, "dots"),
        ({}, {"kind": "TPU v5", "images": 1536}, "dots"),
        ({}, {"kind": "TPU v5", "images": 2304}, "lean"),
        ({"depth": 24}, {"kind": "TPU v5", "images": 32}, "dots"),
        ({"dtype": "float32"}, {"kind": "TPU v2", "images": 48}, "lean"),
        ({"depth": 144}, {"kind": "TPU v5 lite", "images": 8}, "full"),
        ({"depth": 144}, {"kind": "TPU v5 lite", "images": 8, "parts": 8}, "lean"),
        ({}, {"kind": "TPU v5", "images": 2304, "tensor": 4}, "dots"),
        ({}, {"kind": "TPU of the future", "images": 4096}, "lean"),
    ],
    ids=str,
)
def test_a_tpu_gets_the_fastest_way_that_fits(changes, devices, chosen) -> None:
    assert compute.on_tpu(zoo.change(B16, **changes), compute.Work(**devices)) == chosen


@pytest.mark.parametrize(
    ("changes", "devices", "unrolled"),
    [
        ({}, {}, True),
        ({}, {"steps": 1_000}, False),  # the compiler would need more time than the run saves
        ({}, {"images": 512}, False),  # they do not fit
        ({}, {"kind": "TPU v5", "images": 512}, True),
        ({}, {"kind": "TPU of the future"}, False),
        ({"depth": 24}, {"parts": 8}, True),
        ({"depth": 32}, {"parts": 8}, True),
        ({"depth": 33}, {"parts": 8}, False),
        ({"attention": "streams"}, {}, True),
        ({"attention": "xla"}, {}, False),
        ({"dropout": 0.1}, {}, False),
    ],
    ids=str,
)
def test_a_tpu_unrolls_blocks_that_fit_if_the_run_is_long(changes, devices, unrolled) -> None:
    options = zoo.change(B16, **{"attention": "recompute", **changes})
    work = {"kind": "TPU v5 lite", "images": 64, "steps": 100_000, **devices}
    assert compute.unrolls(options, compute.Work(**work)) == unrolled


@pytest.mark.parametrize(
    ("changes", "work", "unrolled"),
    [
        ({}, {"encoded": 0.25}, True),
        ({}, {"encoded": 0.25, "steps": 100_000}, False),  # a quarter of the work: too short
        ({}, {"encoded": 0.5, "steps": 150_000}, True),
        ({}, {"encoded": 0.25, "images": 256}, False),
        ({}, {"encoded": 0.02, "images": 256}, True),  # the encoder needs little memory
        ({"depth": 25}, {"encoded": 0.25}, False),  # and 8 of the decoder are too many
    ],
    ids=str,
)
def test_both_parts_of_a_masked_autoencoder_are_unrolled(changes, work, unrolled) -> None:
    base = zoo.change(B16, attention="recompute", **changes)
    work = {"kind": "TPU v5 lite", "images": 64, "steps": 250_000, **work}
    assert compute.unrolls(masked_autoencoder(base), compute.Work(**work)) == unrolled


def test_the_log_counts_the_unrolled_blocks_of_encoder_and_decoder() -> None:
    chips = make_mesh(MeshConfig(), pods.pod("TPU v5 lite", (2, 4, 1)))
    options = masked_autoencoder(zoo.change(B16, attention="recompute"))
    chosen = compute.choose(options, chips, images=64, steps=10**6, encoded=0.25)
    assert compute.described(chosen) == "attention recompute, remat none, unroll 20"
    assert "20 unrolled blocks take up to 10 minutes" in compute.note(chosen)


def test_blocks_are_unrolled_only_where_the_config_leaves_both_choices() -> None:
    chips = make_mesh(MeshConfig(), pods.pod("TPU v5", (2, 2, 2)))
    for changes, chosen in (
        ({}, "remat none, unroll 12"),
        ({"remat": "lean"}, "remat lean, unroll 1"),
        ({"unroll": 1}, "remat dots, unroll 1"),
        ({"unroll": 2}, "remat dots, unroll 2"),
    ):
        options = compute.choose(zoo.change(B16, **changes), chips, images=64, steps=10**6)
        assert compute.described(options) == f"attention recompute, {chosen}"


def test_a_run_with_unrolled_blocks_says_how_long_they_take_to_compile() -> None:
    assert compute.note(zoo.change(B16, unroll=1)) == compute.note(zoo.options("ResNet-18")) == ""
    assert "12 unrolled blocks take up to 6 minutes" in compute.note(zoo.change(B16, unroll=12))


def test_a_run_has_a_value_for_each_choice_and_its_model_keeps_auto() -> None:
    plan = design(small(model={"name": "Ti/16"}), FACTS, one_device())
    assert compute.described(plan.options) == "attention recompute, remat lean, unroll 1"
    saved = plan.start.options
    assert (saved.attention, saved.remat, saved.unroll) == ("auto", "auto", 0)


def test_what_the_config_sets_stays() -> None:
    model = {"name": "Ti/16", "attention": "xla", "remat": "none", "unroll": 3}
    plan = design(small(model=model), FACTS, one_device())
    assert compute.described(plan.options) == "attention xla, remat none, unroll 3"


H14 = zoo.options("H/14", dtype="bfloat16")


@pytest.mark.parametrize(
    ("changes", "mesh", "chosen"),
    [
        ({}, {}, "streams"),
        ({"registers": 4}, {}, "streams"),
        ({}, {"fsdp": 8}, "recompute"),
        ({"pool": "gap", "class_token": False}, {}, "recompute"),
        ({"dropout": 0.1}, {}, "recompute"),
        ({"relative_bias": "shared"}, {}, "recompute"),
        ({"image_size": (196, 196)}, {}, "recompute"),
        ({"attention": "xla"}, {}, "xla"),
    ],
    ids=str,
)
def test_tpus_keep_patches_apart_that_fill_their_tiles(changes, mesh, chosen) -> None:
    chips = make_mesh(MeshConfig(**mesh), pods.pod("TPU v5", (2, 2, 2)))
    options = compute.choose(zoo.change(H14, **changes), chips, images=32)
    assert options.attention == chosen
    assert compute.choose(H14, one_device(), images=32).attention == "recompute"


def test_each_family_gets_what_it_has() -> None:
    swin = compute.choose(zoo.options("Swin-T", remat="auto"), one_device(), images=8)
    assert compute.described(swin) == "attention recompute, remat dots, unroll 1"
    resnet = zoo.options("ResNet-18")
    assert compute.choose(resnet, one_device(), images=8) is resnet
    assert compute.described(resnet) == ""


def test_a_device_computes_its_part_of_a_micro_batch() -> None:
    assert compute.images_at_once(one_device(), 64, accumulate=4) == 16
