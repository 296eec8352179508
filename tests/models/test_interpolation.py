"""Each family resizes positions, relative biases and patches as its own library does."""

from typing import Any

import numpy as np
import pytest

from vit_jax.models import positions

TIMM: dict[str, Any] = {
    "bicubic_aa": "bicubic_antialias",
    "bicubic_noaa": "bicubic",
    "bilinear_aa": "bilinear_antialias",
    "bilinear_noaa": "bilinear",
}


def test_absolute_positions_are_resized_as_timm_does(shared):
    io = np.load(shared / "fixtures/timm_resample_funcs/io.npz")
    names = [name for name in io.files if name.startswith("resample_abs_")]
    assert len(names) == 24
    for name in names:
        method, grid = name.removeprefix("resample_abs_").rsplit("_", 1)
        ours = positions.resize(
            io["posemb_7x7_cls"], source=(7, 7), target=_grid(grid), method=TIMM[method]
        )
        np.testing.assert_allclose(ours, io[name], atol=3e-6)


def test_relative_biases_are_resized_as_timm_and_beit_do(shared):
    io = np.load(shared / "fixtures/timm_resample_funcs/io.npz")
    methods: dict[str, Any] = {
        "geometric_linear": "geometric_linear",
        "bicubic_simple": "bicubic",
    }
    for kind, method in methods.items():
        for grid in ("12x12", "10x10", "5x5", "8x11"):
            ours = positions.resize_relative(
                io["relpos_table_win7"], source=(7, 7), target=_grid(grid), method=method
            )
            np.testing.assert_allclose(ours, io[f"relpos_{kind}_{grid}"], atol=3e-6)
    io = np.load(shared / "fixtures/beit_finetune_interp/io.npz")
    for side in (12, 10, 5):
        ours = positions.resize_relative(io["table_win7"], source=(7, 7), target=(side, side))
        np.testing.assert_allclose(ours, io[f"table_win7_to_win{side}"], atol=1e-6)


def test_patches_are_resampled_as_timm_does(shared):
    io = np.load(shared / "fixtures/timm_resample_funcs/io.npz")
    kernel = io["patch_kernel_oihw_8"].transpose(2, 3, 1, 0)
    for size in ("4x4", "12x12", "6x10"):
        ours = positions.resample_patch(kernel, _grid(size)).transpose(3, 2, 0, 1)
        np.testing.assert_allclose(ours, io[f"flexivit_pi_resize_bicubic_aa_{size}"], atol=3e-6)


def test_resampled_patches_give_the_tokens_of_the_resized_image():
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(4, 4, 1, 5)), rng.normal(size=(4, 4))
    larger = positions.resample_patch(kernel, (8, 6), method="bilinear")
    image = positions.resize(
        patch.reshape(1, 16, 1), source=(4, 4), target=(8, 6), method="bilinear"
    )
    tokens = np.einsum("hw,hwd->d", image.reshape(8, 6), larger[:, :, 0])
    np.testing.assert_allclose(tokens, np.einsum("hw,hwd->d", patch, kernel[:, :, 0]))


@pytest.mark.parametrize("method", ["align_corners", "bicubic", "bicubic_antialias", "bilinear"])
def test_constant_tables_and_prefix_rows_stay(method):
    table = np.concatenate([np.arange(6.0).reshape(1, 3, 2), np.full((1, 15, 2), 7.0)], axis=1)
    resized = positions.resize(table, source=(3, 5), target=(4, 2), method=method)
    np.testing.assert_array_equal(resized[:, :3], table[:, :3])
    np.testing.assert_allclose(resized[:, 3:], np.full((1, 8, 2), 7.0))


def test_an_unknown_method_is_named():
    method: Any = "cubic"
    with pytest.raises(ValueError, match="unknown interpolation 'cubic': choose one of align_corn"):
        positions.resize(np.zeros((1, 4, 2)), source=(2, 2), target=(3, 3), method=method)


def _grid(text):
    rows, columns = text.split("x")
    return int(rows), int(columns)
