"""Fitting a checkpoint to another model equals the fine-tuning code of the model's family."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import vit_jax
from tests.compare import assert_close
from vit_jax.checkpoints import load, surgery
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.interpolation import Methods

TINY = ViTOptions(
    image_size=(16, 24), patch_size=(8, 8), width=12, depth=2, mlp_dim=16, num_heads=3
)


def test_beit_is_fine_tuned_with_its_shared_biases_in_every_block(shared):
    folder = shared / "fixtures/beit_finetune_interp"
    io = np.load(folder / "io.npz")
    source = load.read(folder / "checkpoint_pretrain_shared.pth", num_heads=3)
    for size in (24, 32, 48, 80):
        tuned, report = load.adapted(
            source,
            image_size=size,
            num_classes=7,
            pool="gap",
            norm_at="pooled",
            relative_bias="per_block",
            mim_classes=0,
            mask_token=False,
        )
        table = tuned.params["encoder/blocks/attention/relative_bias"]
        for layer in table:
            assert_close(layer, io[f"expected_relpos_table_{size}"], atol=3e-6)
        assert {"encoder/mask", "encoder/norm/bias", "encoder/norm/scale"} <= set(report.dropped)
        tuned.params["encoder/norm/scale"] = io["fc_norm_weight"]
        tuned.params["encoder/norm/bias"] = io["fc_norm_bias"]
        tuned.params["head/kernel"], tuned.params["head/bias"] = (
            io["head_weight"].T,
            io["head_bias"],
        )
        model = assemble(tuned.options, tuned.params)
        assert_close(model(io[f"images_{size}"]), io[f"expected_logits_{size}"], atol=1e-5)


def test_deit_keeps_the_rows_of_both_tokens(shared):
    io = np.load(shared / "fixtures/deit_finetune_interp/io.npz")
    path = shared / "fixtures/deit_distilled/checkpoint.pth"
    for size in (24, 48, 80):
        model = load_vit(path, num_heads=3, image_size=size)
        assert_close(model.encoder.position[...], io[f"expected_posemb_{size}"], atol=3e-6)
        assert_close(model(io[f"images_{size}"]), io[f"expected_logits_{size}"], atol=1e-5)


@pytest.mark.parametrize(
    ("file", "prefix", "changes"),
    [
        ("model.safetensors", "st_bicubic_aa", {"num_heads": 3}),
        ("ckpt_vitjax_cls.npz", "npz_bilinear", {"resize": "bilinear"}),
    ],
)
def test_timm_resizes_in_two_ways(shared, file, prefix, changes):
    folder = shared / "fixtures/timm_posemb_interp"
    io = np.load(folder / "io.npz")
    for size in ("24x24", "80x80", "32x56", "32x72"):
        height, width = map(int, size.split("x"))
        model = load_vit(folder / file, image_size=(height, width), **changes)
        assert_close(model.encoder.position[...], io[f"{prefix}_expected_posemb_{size}"], atol=3e-6)
        assert_close(model(io[f"images_{size}"]), io[f"{prefix}_expected_logits_{size}"], atol=1e-5)


def test_a_removed_class_row_is_added_to_the_token():
    options = dataclasses.replace(TINY, class_position=True, num_classes=3)
    params = random_params(options)
    images = np.random.default_rng(1).normal(size=(2, 16, 24, 3)).astype(np.float32)
    expected = assemble(options, params)(images)
    without = dataclasses.replace(options, class_position=False)
    moved, _ = adapt(params, options, without)
    assert moved["encoder/position"].shape[1] == 6
    assert_close(assemble(without, moved)(images), expected, atol=1e-5)
    back, _ = adapt(moved, without, options)
    assert_close(assemble(options, back)(images), expected, atol=1e-5)


def test_tokens_that_one_model_lacks_are_dropped_or_initialised():
    distilled = dataclasses.replace(TINY, distillation=True, registers=2)
    params = random_params(distilled)
    plain, report = adapt(params, distilled, TINY)
    np.testing.assert_array_equal(
        plain["encoder/position"], np.delete(params["encoder/position"], 1, axis=1)
    )
    assert {"encoder/distillation", "encoder/registers", "head_distillation/kernel"} <= set(
        report.dropped
    )
    _, report = adapt(plain, TINY, distilled)
    assert {"encoder/distillation", "encoder/registers", "head_distillation/bias"} <= set(
        report.initialised
    )


def test_another_feature_size_gets_a_new_head_for_the_same_classes():
    params = random_params(TINY)
    wider = dataclasses.replace(TINY, pool="token_gap")
    assert wider.feature_size == 2 * TINY.feature_size
    for source, target in ((TINY, wider), (wider, TINY)):
        after, report = adapt(random_params(source), source, target)
        assert report.dropped == report.initialised == ("head/bias", "head/kernel")
        assert not after["head/kernel"].any()
    narrow = dataclasses.replace(TINY, representation_size=TINY.width)
    after, report = adapt(params, TINY, narrow)
    assert report.dropped == ("head/bias", "head/kernel"), "of equal size, but of other features"


def test_a_larger_patch_embeds_an_enlarged_image_equally():
    options = dataclasses.replace(TINY, position="none", num_classes=3)
    params = random_params(options)
    images = np.random.default_rng(1).normal(size=(2, 16, 24, 3)).astype(np.float32)
    larger = dataclasses.replace(options, patch_size=(16, 16), image_size=(32, 48))
    moved, report = adapt(params, options, larger, resize=Methods(patch="bilinear"))
    assert report.resized == ("encoder/embedding/kernel (8, 8, 3, 12) -> (16, 16, 3, 12)",)
    patches = images.reshape(2, 2, 8, 3, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    enlarged = jax.image.resize(patches, (2, 2, 3, 16, 16, 3), "linear")
    enlarged = enlarged.transpose(0, 1, 3, 2, 4, 5).reshape(2, 32, 48, 3)
    assert_close(
        assemble(larger, moved)(enlarged),
        assemble(options, params)(images),
        atol=1e-4,
    )


@pytest.mark.parametrize("size", [(4, 4), (12, 12), (6, 10)])
def test_a_timm_model_of_another_patch_size_is_resampled_as_timm_does(shared, tmp_path, size):
    io = np.load(shared / "fixtures/timm_resample_funcs/io.npz")
    options = dataclasses.replace(TINY, width=6, depth=1, num_classes=2, activation="gelu_erf")
    params = random_params(options)
    params["encoder/embedding/kernel"] = io["patch_kernel_oihw_8"].transpose(2, 3, 1, 0)
    vit_jax.save(load.assemble(options, params), tmp_path / "m", layout="timm")
    sides = (2 * size[0], 3 * size[1])
    loaded = load_vit(tmp_path / "m", patch_size=size, image_size=sides)
    expected = io[f"flexivit_pi_resize_bicubic_aa_{size[0]}x{size[1]}"].transpose(2, 3, 1, 0)
    assert_close(loaded.encoder.embedding.kernel[...], expected, atol=3e-6)
    np.testing.assert_array_equal(loaded.encoder.position[...], params["encoder/position"])


# How a model of each layout is resized: its positions, its relative biases, its patches.
RESIZED = {
    "vit_jax": Methods(position="align_corners", relative="geometric_cubic", patch="bilinear"),
    "big_vision": Methods(position="align_corners", relative="geometric_cubic", patch="bilinear"),
    "timm": Methods(
        position="bicubic_antialias", relative="geometric_linear", patch="bicubic_antialias"
    ),
    "deit": Methods(position="bicubic", patch="bicubic_antialias"),
    "mae": Methods(position="bicubic", patch="bicubic_antialias"),
    "beit": Methods(position="bicubic", relative="geometric_cubic", patch="bicubic_antialias"),
    "hf": Methods(
        position="bicubic", relative="bilinear", decoder="flat", patch="bicubic_antialias"
    ),
}


@pytest.mark.parametrize("layout", RESIZED)
def test_a_model_is_resized_as_the_code_of_its_layout_does(tmp_path, layout):
    npz = layout in ("vit_jax", "big_vision")
    options = dataclasses.replace(
        TINY,
        num_classes=2,
        activation="gelu_tanh" if npz else "gelu_erf",
        key_bias=layout != "beit",
    )
    path = tmp_path / ("m.npz" if npz else "m" if layout == "hf" else "m.pth")
    vit_jax.save(load.assemble(options, random_params(options)), path, layout=layout)
    assert load.read(path, layout=layout).resize == RESIZED[layout]


def test_all_misfits_are_listed_at_once():
    other = dataclasses.replace(TINY, channels=1, mlp_dim=8, qk_norm=True)
    with pytest.raises(ValueError, match="it takes 3 channels, the model 1: ") as error:
        adapt(random_params(TINY), TINY, other)
    for misfit in (
        "encoder/blocks/mlp/fc1/kernel is",
        "encoder/blocks/mlp/fc2/kernel is",
        "key_norm/scale is",
    ):
        assert misfit in str(error.value)


def adapt(params, source, target, **changes):
    return surgery.adapt(params, source=source, target=target, key=jax.random.key(0), **changes)


def random_params(options):
    rng = np.random.default_rng(0)
    shapes = surgery.shapes(options)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def load_vit(path, **changes: Any) -> Any:
    """A model, typed as Any because each test knows its type."""
    return vit_jax.load(path, **changes)


def assemble(options, params) -> Any:
    return load.assemble(options, params)
