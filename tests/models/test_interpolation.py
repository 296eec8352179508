"""Each family resizes positions, relative biases and patches as its original library does."""

import dataclasses
from typing import Any, get_args

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from vit_jax.models import interpolation, positions

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
        assert_close(ours, io[name], atol=3e-6)


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
            assert_close(ours, io[f"relpos_{kind}_{grid}"], atol=3e-6)
    io = np.load(shared / "fixtures/beit_finetune_interp/io.npz")
    for side in (12, 10, 5):
        ours = positions.resize_relative(io["table_win7"], source=(7, 7), target=(side, side))
        assert_close(ours, io[f"table_win7_to_win{side}"], atol=1e-6)


def test_patches_are_resampled_as_timm_does(shared):
    io = np.load(shared / "fixtures/timm_resample_funcs/io.npz")
    kernel = io["patch_kernel_oihw_8"].transpose(2, 3, 1, 0)
    for size in ("4x4", "12x12", "6x10"):
        ours = positions.resample_patch(kernel, _grid(size)).transpose(3, 2, 0, 1)
        assert_close(ours, io[f"flexivit_pi_resize_bicubic_aa_{size}"], atol=3e-6)


@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 6)), ((4, 6), (8, 9)), ((3, 2), (3, 5))])
def test_resampled_patches_give_the_tokens_of_the_resized_image(old, new):
    rng = np.random.default_rng(0)
    kernel, patch = rng.normal(size=(*old, 1, 5)), rng.normal(size=old)
    larger = positions.resample_patch(kernel, new, method="bilinear")
    image = positions.resize(patch.reshape(1, -1, 1), source=old, target=new, method="bilinear")
    tokens = np.einsum("hw,hwd->d", image.reshape(new), larger[:, :, 0])
    assert_close(tokens, np.einsum("hw,hwd->d", patch, kernel[:, :, 0]), rtol=1e-7)


@pytest.mark.parametrize("method", ["align_corners", "bicubic", "bicubic_antialias", "bilinear"])
def test_constant_tables_and_prefix_rows_stay(method):
    table = np.concatenate([np.arange(6.0).reshape(1, 3, 2), np.full((1, 15, 2), 7.0)], axis=1)
    resized = positions.resize(table, source=(3, 5), target=(4, 2), method=method)
    np.testing.assert_array_equal(resized[:, :3], table[:, :3])
    assert_close(resized[:, 3:], np.full((1, 8, 2), 7.0), rtol=1e-7)


def test_cubic_kernels_have_the_sharpness_of_their_library():
    """Weights halfway between two points, with PyTorch's kernel and with JAX's."""
    matrix = interpolation.matrix(4, 7, "bicubic_align_corners")[3]
    assert_close(matrix, [-0.75 / 8, 0.59375, 0.59375, -0.75 / 8], rtol=1e-7)
    antialias = interpolation.matrix(4, 8, "bicubic_antialias")
    where = np.array([1.75, 0.75, 0.25, 1.25])  # distances of the fourth of 8 points
    keys = [((-0.5 * d + 2.5) * d - 4) * d + 2 if d > 1 else (1.5 * d - 2.5) * d * d + 1
            for d in where]  # fmt: skip
    assert_close(antialias[4], np.array(keys)[[0, 1, 2, 3]], atol=1e-12)


@pytest.mark.parametrize("method", get_args(interpolation.Method))
def test_the_weights_of_every_point_sum_to_one(method):
    for source, target in ((4, 7), (7, 4), (5, 5), (1, 3), (9, 2)):
        if method != "sincos2d":  # which has no matrix
            matrix = interpolation.matrix(source, target, method)
            assert matrix.shape == (target, source)
            assert_close(matrix.sum(axis=1), 1, rtol=1e-7)


@pytest.mark.parametrize("method", ["geometric_cubic", "geometric_linear"])
def test_relative_biases_stay_within_the_old_offsets(method):
    """Beyond the farthest old offset, its bias is repeated."""
    table = np.random.default_rng(0).normal(size=(25, 2))
    larger = positions.resize_relative(table, source=(3, 3), target=(9, 9), method=method)
    larger, old = larger.reshape(17, 17, 2), table.reshape(5, 5, 2)
    assert_close(larger[[0, 0, -1, -1], [0, -1, 0, -1]],
                               old[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-6)  # fmt: skip
    assert_close(larger[0, 8], old[0, 2], atol=1e-6)


def test_the_smallest_windows_are_resized_too():
    """A cubic spline needs more than three offsets."""
    table = np.random.default_rng(0).normal(size=(3 * 5 + 3, 2))
    larger = positions.resize_relative(table, source=(2, 3), target=(4, 3))
    assert larger.shape == (7 * 5 + 3, 2)
    np.testing.assert_array_equal(larger[-3:], table[-3:])


def test_tables_on_the_host_are_resized_in_float64():
    table = np.random.default_rng(0).normal(size=(1, 12, 4)).astype(np.float32)
    ours = positions.resize(table, source=(3, 4), target=(5, 7), method="bicubic")
    rows, columns = interpolation.matrix(3, 5, "bicubic"), interpolation.matrix(4, 7, "bicubic")
    grid = table.astype(np.float64).reshape(3, 4, 4)
    exact = np.einsum("ih,jw,hwd->ijd", rows, columns, grid).reshape(1, 35, 4)
    np.testing.assert_array_equal(ours, exact.astype(np.float32))


def test_tables_on_a_device_are_resized_in_full_precision():
    """The default of a TPU is bfloat16, and of a GPU TF32."""
    resize = lambda table: positions.resize(table, source=(3, 4), target=(5, 7))  # noqa: E731
    program = jax.make_jaxpr(resize)(np.ones((1, 12, 4), np.float32))
    products = [e for e in program.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert products
    for product in products:
        assert set(product.params["precision"]) == {jax.lax.Precision.HIGHEST}


def test_another_method_for_positions_leaves_the_others():
    methods = interpolation.Methods(relative="bilinear", decoder="flat", patch="bicubic")
    changed = methods.with_position("bilinear")
    assert changed == dataclasses.replace(methods, position="bilinear")
    assert methods.with_position("") == methods


def test_an_unknown_method_is_named():
    method: Any = "cubic"
    with pytest.raises(ValueError, match="unknown interpolation 'cubic': choose one of align_corn"):
        positions.resize(np.zeros((1, 4, 2)), source=(2, 2), target=(3, 3), method=method)


def _grid(text):
    rows, columns = text.split("x")
    return int(rows), int(columns)
