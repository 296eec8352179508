"""Initial values are drawn from the distributions of the papers' code."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx, traverse_util

from vit_jax.models import zoo
from vit_jax.models.decoder import DecoderOptions

SIZES = {"width": 64, "depth": 3, "mlp_dim": 256, "num_heads": 2, "image_size": (32, 32)}
DECODER = DecoderOptions(width=48, depth=2, mlp_dim=192, num_heads=2)


def drawn(name: str, **changes: Any) -> dict[str, np.ndarray]:
    options = zoo.options(name, **{**SIZES, **changes})
    params = nnx.to_pure_dict(nnx.state(zoo.init(options, key=jax.random.key(0))))
    flat = traverse_util.flatten_dict(params, sep="/")
    return {path: np.asarray(value) for path, value in flat.items()}


def is_uniform(values: np.ndarray, limit: float) -> bool:
    inside = np.abs(values).max() <= limit and np.abs(values).max() > 0.9 * limit
    return bool(inside and abs(values.std() * 3**0.5 / limit - 1) < 0.1)


def is_normal(values: np.ndarray, deviation: float) -> bool:
    close = abs(values.std() / deviation - 1) < 0.25
    return bool(close and (values.size < 1000 or np.abs(values).max() > 2.5 * deviation))


@pytest.mark.parametrize("name", ["DeiT-S/16", "DeiT-distilled-S/16", "DeiT-III-S/16"])
def test_deit_begins_with_a_normal_distribution_and_the_convolution_of_pytorch(name: str) -> None:
    params = drawn(name, head_std=0.02)
    for part in ("attention/qkv", "attention/out", "mlp/fc1", "mlp/fc2"):
        assert is_normal(params[f"encoder/blocks/{part}/kernel"], 0.02)
        assert not params[f"encoder/blocks/{part}/bias"].any()
    for path in ("encoder/cls", "encoder/position", "head/kernel"):
        assert is_normal(params[path], 0.02)
    for part in ("kernel", "bias"):
        assert is_uniform(params[f"encoder/embedding/{part}"], 768**-0.5)
    assert not params["head/bias"].any()


@pytest.mark.parametrize("pool", ["token", "gap", "map"])
def test_big_vision_begins_with_larger_positions_and_else_like_vit(pool: str) -> None:
    """`get_posemb` in its models/vit.py: a deviation of 1 / sqrt(width)."""
    fields = {"pool": pool, "class_position": False, "image_size": (128, 128)}
    plain, params = drawn("S/16", **fields), drawn("S/16", **fields, init="big_vision")
    assert abs(params["encoder/position"].std() * 64**0.5 - 1) < 0.03
    assert is_normal(plain["encoder/position"], 0.02)
    for path in plain.keys() - {"encoder/position"}:
        np.testing.assert_array_equal(params[path], plain[path])
    if pool == "map":
        assert is_uniform(params["pool/probe"], (6 / 65) ** 0.5)


def test_big_vision_leaves_positions_that_are_computed() -> None:
    fixed = {"position": "sincos2d", "class_position": False}
    assert "encoder/position" not in drawn("S/16", **fixed, init="big_vision")
    model = {"name": "MAE-pretrain-B/16", "decoder": DECODER}
    found, table = drawn(**model, init="big_vision"), drawn(**model)["encoder/position"]
    np.testing.assert_array_equal(found["encoder/position"], table)


@pytest.mark.parametrize("init", ["big_vision", "deit", "mae", "beit"])
def test_every_part_of_a_model_is_drawn_with_its_own_shape(init: str) -> None:
    """Also attention and MLP of a pool, and a decoder of another depth than the encoder."""
    for name, fields in (
        ("S/16", {"pool": "map"}),
        ("MAE-pretrain-B/16", {"decoder": DECODER}),
        ("MAE-pretrain-B/16", {"decoder": dataclasses.replace(DECODER, depth=1)}),
    ):
        found, plain = drawn(name, **fields, init=init), drawn(name, **fields)
        assert {path: a.shape for path, a in found.items()} == {
            path: a.shape for path, a in plain.items()
        }
    # BEiT divides the projections of block l by sqrt(2 l); a pool is no block.
    if init == "beit":
        values = drawn("S/16", pool="map", init=init)
        in_blocks = values["encoder/blocks/mlp/fc2/kernel"].std(axis=(1, 2))
        np.testing.assert_allclose(in_blocks / in_blocks[0], [1, 2**-0.5, 3**-0.5], rtol=0.05)
        in_pool = values["pool/mlp/fc2/kernel"].std()
        assert abs(in_pool / in_blocks[0] - 2**0.5) < 0.05


def test_the_heads_keep_the_values_that_a_config_gives_them() -> None:
    params = drawn("DeiT-distilled-S/16", head_std=0.1, head_bias=-6.9)
    for head in ("head", "head_distillation"):
        assert is_normal(params[f"{head}/kernel"], 0.1)
        np.testing.assert_array_equal(params[f"{head}/bias"], np.float32(-6.9))


def test_a_masked_autoencoder_begins_as_the_authors_code_does() -> None:
    params = drawn("MAE-pretrain-B/16", decoder=DECODER)
    assert is_uniform(params["encoder/embedding/kernel"], (6 / (768 + 64)) ** 0.5)
    assert is_uniform(params["encoder/embedding/bias"], 768**-0.5)
    for part, width in (("encoder", 64), ("decoder", 48)):
        block = f"{part}/blocks"
        assert is_uniform(params[f"{block}/attention/qkv/kernel"], (6 / (4 * width)) ** 0.5)
        assert is_uniform(params[f"{block}/attention/out/kernel"], (6 / (2 * width)) ** 0.5)
        assert is_uniform(params[f"{block}/mlp/fc1/kernel"], (6 / (5 * width)) ** 0.5)
        assert not params[f"{block}/mlp/fc1/bias"].any()
    assert is_normal(params["encoder/cls"], 0.02) and is_normal(params["decoder/mask"], 0.02)


def test_beit_begins_with_smaller_projections_in_later_blocks() -> None:
    params = drawn("BEiT-pretrain-B/16", mim_classes=50)
    whole = np.abs(params["encoder/blocks/mlp/fc1/kernel"]).max()
    assert 0.019 < whole <= 0.02, "cut at one deviation"
    for layer in range(3):
        largest = np.abs(params["encoder/blocks/mlp/fc2/kernel"][layer]).max()
        assert largest == pytest.approx(0.02 / (2 * (layer + 1)) ** 0.5, rel=0.02)


def test_the_default_is_that_of_vit_and_the_head_is_left_alone() -> None:
    params = drawn("S/16")
    assert is_uniform(params["encoder/blocks/mlp/fc1/kernel"], (6 / (64 + 256)) ** 0.5)
    assert is_uniform(params["encoder/blocks/attention/qkv/kernel"], (6 / 128) ** 0.5)
    assert is_normal(params["encoder/blocks/mlp/fc1/bias"], 1e-6)  # MlpBlock of the original
    assert not params["encoder/blocks/attention/qkv/bias"].any()
    assert not params["encoder/cls"].any() and not params["head/kernel"].any()
    layered = drawn("S/16", position_at="every_block")
    assert is_normal(layered["encoder/blocks/position"], 0.02)
    assert not drawn("DeiT-S/16")["head/kernel"].any()


def test_layers_are_drawn_one_by_one() -> None:
    kernel = drawn("DeiT-S/16")["encoder/blocks/mlp/fc1/kernel"]
    assert not np.array_equal(kernel[0], kernel[1])
