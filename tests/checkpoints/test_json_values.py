"""Names and sizes in the JSON files beside a checkpoint are checked before use."""

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
def test_a_size_that_is_not_a_whole_number_is_refused(config, value) -> None:
    with pytest.raises(ValueError, match="whole number"):
        hints.nominal_size(hints.Hints(config=config(value)))


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "a/b", "a\0b"])
def test_an_invalid_file_name_is_refused(name, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="file must be the name of a file"):
        beside.other_owner({"vit_jax": {"file": name}}, tmp_path / "model.npz")
