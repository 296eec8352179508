"""`help` of what a Python program uses says its arguments, its shapes and its errors."""

import inspect
import re

import pytest

import vit_jax
from vit_jax.models.model import Model

PUBLIC = [getattr(vit_jax, name) for name in vit_jax.__all__]
METHODS = [Model.__call__, Model.features, Model.resized]
SHAPES = {
    "read_images": "float32 (N, height, width, channels)",
    "__call__": "(B, K) float32",
    "load": "(B, height, width, channels) float32",
    "features": "(B, `options.feature_size`)",
    "train": "uint8 (N, H, W) or (N, H, W, C)",
}


@pytest.mark.parametrize("function", PUBLIC, ids=vit_jax.__all__)
def test_help_names_every_argument_and_what_is_raised(function) -> None:
    text = " ".join((inspect.getdoc(function) or "").split())
    words = set(re.findall(r"\w+", text))
    assert [name for name in inspect.signature(function).parameters if name not in words] == []
    assert "Raises ValueError" in text


@pytest.mark.parametrize("function", [*PUBLIC, *METHODS], ids=lambda one: one.__name__)
def test_help_has_a_first_line_and_the_shapes_of_arrays(function) -> None:
    text = inspect.getdoc(function) or ""
    assert text.split("\n")[0].rstrip().endswith("."), "a sentence in one line"
    assert SHAPES.get(function.__name__, "") in " ".join(text.split())
