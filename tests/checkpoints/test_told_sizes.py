"""What the JSON files beside a checkpoint tell of names and sizes is checked before it is used."""

import pathlib

import pytest

from vit_jax.checkpoints import beside
from vit_jax.checkpoints.layouts import hints


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
def test_a_size_that_is_no_whole_number_is_refused(config, value) -> None:
    with pytest.raises(ValueError, match="whole number"):
        hints.nominal_size(hints.Hints(config=config(value)))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a/b", "a\0b"])
def test_a_name_that_no_file_can_have_is_refused(name, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="which is no name"):
        beside.whose({"vit_jax": {"file": name}}, tmp_path / "model.npz")
