"""Names and sizes in the JSON files beside a checkpoint are checked before use."""

import pathlib
from typing import Any

import pytest

from vit_jax.checkpoints import beside
from vit_jax.checkpoints.layouts import expects, hints

HUGE = 10**400  # a JSON file may have integers that no float holds


@pytest.mark.parametrize("value", [32.7, float("inf"), float("nan"), True, "32", 0, -8, None])
@pytest.mark.parametrize(
    "config",
    [
        lambda value: {"pretrained_cfg": {"input_size": [3, value, 32]}},
        lambda value: {"image_size": [32, value]},
        lambda value: {"image_size": {"height": value, "width": 32}},
        lambda value: {"image_size": {"shortest_edge": value or -1}},
    ],
    ids=["timm", "list", "height", "edge"],
)
def test_a_size_that_is_not_a_whole_number_is_refused(config, value) -> None:
    with pytest.raises(ValueError, match="whole number"):
        hints.nominal_size(hints.Hints(config=config(value)))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a/b", "a\0b"])
def test_an_invalid_file_name_is_refused(name, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="file must be the name of a file"):
        beside.other_owner({"vit_jax": {"file": name}}, tmp_path / "model.npz")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_mean": [HUGE] * 3}, "preprocessor_config.json has image_mean"),
        ({"image_mean": [-HUGE] * 3}, "preprocessor_config.json has image_mean"),
        ({"image_std": HUGE}, "preprocessor_config.json has image_std"),
        ({"rescale_factor": HUGE}, "preprocessor_config.json has rescale_factor"),
        ({"size": 1, "crop_pct": HUGE}, "preprocessor_config.json has crop_pct"),
        ({"size": HUGE}, "preprocessor_config.json has size"),
        (
            {"size": {"shortest_edge": 1}, "crop_size": HUGE, "do_center_crop": True},
            "preprocessor_config.json has crop_size",
        ),
    ],
)
def test_numbers_of_a_preprocessor_that_no_float_holds_are_refused(fields, message) -> None:
    with pytest.raises(ValueError, match=message) as error:
        expects.read(fields, {})
    assert "correct that file, or remove it" in str(error.value)


@pytest.mark.parametrize("name", ["mean", "std"])
def test_pixel_values_of_timm_that_no_float_holds_are_refused(name) -> None:
    with pytest.raises(ValueError, match=f"pretrained_cfg has {name}"):
        expects.read({}, {"pretrained_cfg": {name: [HUGE] * 3}})


NUMBERS: dict[str, tuple[Any, ...]] = {
    "layer_scale_init_value": (HUGE, "x", [1]),
    "layerscale_value": (HUGE, "x", [1]),
    "layer_norm_eps": (HUGE, "x", [1]),
    "num_groups": (-1, "x", [1]),
    "num_heads": (0, "x", True, [1, "x"]),
    "decoder_num_heads": (0, "x", [1]),
    "window_size": (0, "x", {}, [1, "x"], [[1]]),
    "hidden_act": (1, ["gelu"]),
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, vs in NUMBERS.items() for v in vs])
@pytest.mark.parametrize("inside", ["", "vision_config", "backbone_config", "model_args"])
def test_a_field_of_a_wrong_kind_is_named(name, value, inside) -> None:
    config = {name: value}
    with pytest.raises(ValueError, match=rf"config\.json has {name} .*, which must be a"):
        hints.Hints(config={inside: config} if inside else config)


def test_one_model_has_one_number_of_heads() -> None:
    several = hints.Hints(config={"num_heads": [3, 6]})  # as a Swin's config.json has them
    with pytest.raises(ValueError, match=r"width 24 does not divide into \[3, 6\] heads"):
        hints.heads(several, {}, width=24)
