"""Surgery loads, resizes, drops or initialises every parameter, and reports which."""

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import surgery
from vit_jax.models import positions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.interpolation import Methods

KEY = jax.random.key(0)
HEAD = ("head/bias", "head/kernel")


def adapt(source: dict, target: dict) -> tuple[dict, surgery.Params, surgery.Report]:
    """Surgery between two tiny models: the parameters before and after, and the report."""
    before = tiny.params(tiny.options(**source))
    after, report = surgery.adapt(
        before, source=tiny.options(**source), target=tiny.options(**target), key=KEY
    )
    shapes = surgery.shapes(tiny.options(**target))
    assert {path: array.shape for path, array in after.items()} == shapes
    assert {array.dtype.name for array in after.values()} == {"float32"}
    named = [path.split(" ")[0] for path in (*report.loaded, *report.resized, *report.initialised)]
    assert sorted(named) == sorted(shapes), "every parameter is named once"
    for path in report.loaded:
        np.testing.assert_array_equal(after[path], before[path])
    return before, after, report


def test_the_same_model_is_loaded_as_it_is() -> None:
    _, _, report = adapt({}, {"dropout": 0.1, "dtype": "bfloat16", "remat": "full"})
    assert (report.resized, report.dropped, report.initialised) == ((), (), ())
    assert str(report).splitlines() == [
        f"loaded {len(report.loaded)} parameters as they are",
        "resized: none",
        "dropped: none",
        "initialised: none",
    ]


def test_another_number_of_classes_gets_a_zero_head() -> None:
    _, after, report = adapt({}, {"num_classes": 9, "head_bias": -2.0})
    assert report.dropped == report.initialised == ("head/bias", "head/kernel")
    assert not after["head/kernel"].any()
    assert (after["head/bias"] == -2).all()


def test_a_dropped_pre_logits_layer_takes_the_head_with_it() -> None:
    """Even at the same width, the input of the old head no longer exists."""
    _, after, report = adapt({"representation_size": 32}, {})
    dropped = ("head/bias", "head/kernel", "pre_logits/bias", "pre_logits/kernel")
    assert report.dropped == dropped
    assert report.initialised == ("head/bias", "head/kernel")
    assert not after["head/kernel"].any()


def test_a_new_pre_logits_layer_is_initialised() -> None:
    _, after, report = adapt({}, {"representation_size": 16})
    assert report.dropped == ("head/bias", "head/kernel")
    assert len(report.initialised) == 4
    assert after["pre_logits/kernel"].std() > 0.05
    assert not after["head/kernel"].any()


def test_a_target_without_classes_has_no_head() -> None:
    _, after, report = adapt({}, {"num_classes": 0})
    assert report.dropped == ("head/bias", "head/kernel")
    assert "head/kernel" not in after


def test_token_to_gap_drops_the_class_token_and_its_position() -> None:
    before, after, report = adapt({"pool": "token"}, {"pool": "gap"})
    assert report.dropped == ("encoder/cls",)
    assert report.resized == ("encoder/position (1, 7, 32) -> (1, 6, 32)",)
    assert "head/kernel" in report.loaded
    np.testing.assert_array_equal(after["encoder/position"], before["encoder/position"][:, 1:])


def test_gap_to_token_starts_the_class_token_at_zero() -> None:
    before, after, report = adapt({"pool": "gap"}, {"pool": "token"})
    assert report.initialised == ("encoder/cls",)
    assert not after["encoder/cls"].any()
    assert not after["encoder/position"][:, 0].any()
    np.testing.assert_array_equal(after["encoder/position"][:, 1:], before["encoder/position"])


def test_token_to_map_initialises_the_pool() -> None:
    _, after, report = adapt({}, {"pool": "map"})
    assert report.dropped == ("encoder/cls",)
    assert {path.split("/")[0] for path in report.initialised} == {"pool"}
    assert after["pool/attention/qkv/kernel"].std() > 0.05


@pytest.mark.parametrize("place", ["input", "every_block"])
def test_positions_are_resized_from_grid_to_grid(place) -> None:
    """From 2 x 3 to 3 x 4; with a table per block, each is resized."""
    name = "encoder/position" if place == "input" else "encoder/blocks/position"
    before, after, report = adapt(
        {"position_at": place}, {"position_at": place, "image_size": (24, 32)}
    )
    (line,) = report.resized
    assert line == f"{name} {before[name].shape} -> {after[name].shape}"
    tables = before[name].reshape(-1, 1, 7, 32)
    for old, new in zip(tables, after[name].reshape(-1, 1, 13, 32), strict=True):
        expected = positions.resize(old, source=(2, 3), target=(3, 4))
        assert_close(new, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["flat", "grid"])
def test_positions_of_a_decoder_are_resized_as_one_row_or_as_a_grid(kind) -> None:
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    source = tiny.options(decoder=sizes, num_classes=0)
    target = tiny.options(decoder=sizes, num_classes=0, image_size=(24, 32))
    before, methods = tiny.params(source), Methods(position="bicubic", decoder=kind)
    after, _ = surgery.adapt(before, source=source, target=target, key=KEY, resize=methods)
    name = "decoder/position"
    old, new = ((1, 6), (1, 12)) if kind == "flat" else ((2, 3), (3, 4))
    expected = positions.resize(before[name], source=old, target=new, method="bicubic")
    assert_close(after[name], expected, atol=1e-6)
    grid = positions.resize(
        before["encoder/position"], source=(2, 3), target=(3, 4), method="bicubic"
    )
    assert_close(after["encoder/position"], grid, atol=1e-6)


def test_a_grid_with_the_same_number_of_patches_is_resized() -> None:
    before, after, report = adapt({}, {"image_size": (24, 16)})
    assert report.resized == ("encoder/position (1, 7, 32) -> (1, 7, 32)",)
    assert np.abs(after["encoder/position"] - before["encoder/position"]).max() > 0.1


def test_learned_2d_tables_are_resized_along_their_side() -> None:
    two = {"position": "learned_2d"}
    before, after, report = adapt(two, two | {"image_size": (32, 24)})
    assert report.resized == ("encoder/position_rows (1, 2, 16) -> (1, 4, 16)",)
    ends = [0, -1]
    np.testing.assert_array_equal(
        after["encoder/position_rows"][:, ends], before["encoder/position_rows"][:, ends]
    )


def test_another_kind_of_positions_is_initialised() -> None:
    _, after, report = adapt({"position": "sincos2d"}, {})
    assert report.initialised == ("encoder/position",)
    assert 0.01 < after["encoder/position"].std() < 0.03
    _, _, report = adapt({}, {"position": "relative"})
    assert report.dropped == ("encoder/position",)
    assert report.initialised == ("encoder/blocks/attention/relative",)


def test_positions_added_in_other_places_are_initialised() -> None:
    """The table has the same shape, but was trained to be added only to the input."""
    before, after, report = adapt({}, {"position_at": "every_block_shared"})
    assert (report.dropped, report.initialised) == (("encoder/position",), ("encoder/position",))
    assert np.abs(after["encoder/position"] - before["encoder/position"]).max() > 0.1


def test_relative_positions_are_resized_as_a_line() -> None:
    relative = {"position": "relative"}
    before, after, report = adapt(relative, relative | {"image_size": (24, 32)})
    name = "encoder/blocks/attention/relative"
    assert report.resized == (f"{name} (3, 13, 8) -> (3, 25, 8)",)
    assert_close(after[name][:, ::2], before[name], atol=1e-6)


def test_tables_of_blocks_lose_and_gain_the_row_of_the_class_token() -> None:
    token, mean = ({"position_at": "every_block", "pool": pool} for pool in ("token", "gap"))
    before, after, _ = adapt(token, mean)
    np.testing.assert_array_equal(
        after["encoder/blocks/position"], before["encoder/blocks/position"][:, :, 1:]
    )
    before, after, _ = adapt(mean, token)
    np.testing.assert_array_equal(
        after["encoder/blocks/position"][:, :, 1:], before["encoder/blocks/position"]
    )
    assert not after["encoder/blocks/position"][:, :, 0].any()


def test_rows_of_positions_follow_their_tokens() -> None:
    """The order is class token, distillation token, registers, patches."""
    rows = {"register_position": True, "registers": 2}
    before, after, _ = adapt(rows | {"distillation": True}, rows)
    kept = np.delete(before["encoder/position"], 1, axis=1)
    np.testing.assert_array_equal(after["encoder/position"], kept)
    before, after, _ = adapt(rows, rows | {"distillation": True})
    np.testing.assert_array_equal(
        np.delete(after["encoder/position"], 1, axis=1), before["encoder/position"]
    )
    assert not after["encoder/position"][:, 1].any()
    with_rows, without = tiny.options(**rows), tiny.options(registers=2)
    before = tiny.params(with_rows)
    after, _ = surgery.adapt(before, source=with_rows, target=without, key=KEY)
    np.testing.assert_array_equal(
        after["encoder/position"], np.delete(before["encoder/position"], [1, 2], axis=1)
    )
    added = before["encoder/registers"] + before["encoder/position"][:, 1:3]
    np.testing.assert_array_equal(after["encoder/registers"], added)


def test_layer_scales_may_be_new_but_are_not_dropped() -> None:
    _, after, report = adapt({}, {"layer_scale": 0.125})
    assert report.initialised == ("encoder/blocks/scale1", "encoder/blocks/scale2")
    assert (after["encoder/blocks/scale1"] == 0.125).all() and (
        after["encoder/blocks/scale2"] == 0.125
    ).all()
    with pytest.raises(ValueError, match="the model has no encoder/blocks/scale1"):
        adapt({"layer_scale": 0.125}, {})


def test_a_head_for_other_visual_tokens_is_new() -> None:
    _, after, report = adapt(*({"mim_classes": n, "num_classes": 0} for n in (4, 5)))
    assert report.dropped == report.initialised == ("mim_head/bias", "mim_head/kernel")
    assert not after["mim_head/kernel"].any()


def test_a_norm_in_another_place_is_new() -> None:
    gap = {"pool": "gap", "norm_at": "pooled"}
    _, after, report = adapt({"pool": "gap"}, gap)
    assert report.dropped == report.initialised == ("encoder/norm/bias", "encoder/norm/scale")
    assert (after["encoder/norm/scale"] == 1).all() and not after["encoder/norm/bias"].any()


def test_new_parameters_depend_on_the_key() -> None:
    source, target = tiny.options(), tiny.options(distillation=True)
    params = tiny.params(source)
    first, again, other = (
        surgery.adapt(params, source=source, target=target, key=jax.random.key(seed))[0]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["encoder/distillation"], again["encoder/distillation"])
    assert np.abs(first["encoder/distillation"] - other["encoder/distillation"]).max() > 1e-3


def test_all_misfits_are_listed_at_once() -> None:
    params = tiny.params(tiny.options())
    del params["encoder/norm/scale"]
    params["encoder/blocks/extra"] = np.ones(2, np.float32)
    with pytest.raises(ValueError, match="the checkpoint is of another model: ") as error:
        surgery.adapt(
            params, source=tiny.options(), target=tiny.options(depth=2, mlp_dim=64), key=KEY
        )
    message = str(error.value)
    assert "encoder/blocks/mlp/fc1/kernel is (3, 32, 48), the model has (2, 32, 64)" in message
    assert "encoder/blocks/norm1/scale is (3, 32), the model has (2, 32)" in message
    assert "the model has no encoder/blocks/extra" in message
    assert "encoder/norm/scale is missing" in message
    assert "\n" not in message


def test_a_head_is_not_kept_without_the_norm_before_it() -> None:
    _, _, report = adapt({"head_norm": "batch"}, {})
    assert set(report.dropped) == {"head_norm/mean", "head_norm/variance", *HEAD}
    assert set(report.initialised) == set(HEAD)
    _, after, report = adapt({}, {"head_norm": "batch", "head_std": 0.5})
    assert set(report.initialised) == {"head_norm/mean", "head_norm/variance", *HEAD}
    assert 0.3 < after["head/kernel"].std() < 0.7
    _, _, report = adapt({"head_norm": "batch"}, {"head_norm": "batch"})
    assert not (report.dropped or report.initialised)
