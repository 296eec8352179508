"""Kernels in int8: one scale for each output channel, and nothing but kernels."""

import pathlib

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from tests.compare import assert_same_bits
from tests.export.families import OPTIONS
from tests.models import tiny
from vit_jax.checkpoints import exported, kernels

# The shape of one scale per output channel: layers and outputs are kept, inputs are not.
SCALES = {
    "encoder/blocks/attention/qkv/kernel": (2, 1, 3, 4, 8),
    "encoder/blocks/attention/out/kernel": (2, 1, 1, 32),
    "encoder/blocks/mlp/fc1/kernel": (2, 1, 48),
    "encoder/blocks/mlp/fc2/kernel": (2, 1, 32),
    "encoder/embedding/kernel": (1, 1, 1, 32),
    "head/kernel": (1, 4),
}


def params() -> dict[str, np.ndarray]:
    return tiny.params(OPTIONS["ViT of grey images"])


def test_each_output_channel_has_a_scale_and_only_kernels_are_rounded() -> None:
    exact, arrays = params(), kernels.stored(params(), kind="int8")
    for path, shape in SCALES.items():
        assert arrays[path].dtype == np.int8 and arrays[path].shape == exact[path].shape
        assert arrays[path + kernels.SCALES].shape == shape
        inputs = tuple(i for i, size in enumerate(shape) if size < exact[path].shape[i])
        # The largest weight of each channel is the largest value: all of the range is used.
        assert (np.abs(arrays[path].astype(int)).max(axis=inputs) == 127).all()
    others = exact.keys() - SCALES
    assert_same_bits({p: arrays[p] for p in others}, {p: exact[p] for p in others})


def test_a_kernel_that_is_read_back_differs_by_half_a_step_at_most() -> None:
    exact, arrays = params(), kernels.stored(params(), kind="int8")
    again = kernels.restored(arrays)
    assert again.keys() == exact.keys()
    for path in SCALES:
        step = arrays[path + kernels.SCALES]
        assert (np.abs(again[path] - exact[path]) <= 0.5001 * step).all()
        as_read = np.asarray(kernels.read(arrays)[path].__jax_array__())
        assert_same_bits(as_read, again[path])


def test_a_channel_of_zeros_stays_zero() -> None:
    arrays = kernels.stored({"head/kernel": np.zeros((3, 2), np.float32)}, kind="int8")
    assert not kernels.restored(arrays)["head/kernel"].any()


@pytest.mark.parametrize("shape", [(5,), (2, 4), (32, 1, 4), (64, 4)])
def test_scales_that_do_not_fit_are_no_scales(shape) -> None:
    arrays = kernels.stored({"head/kernel": np.ones((32, 4), np.float32)}, kind="int8")
    arrays["head/kernel_scales"] = np.ones(shape, np.float32)
    assert "head/kernel_scales" in kernels.restored(arrays)


@pytest.mark.parametrize(
    ("scales", "wrong"),
    [
        ({}, "head/kernel"),
        ({"head/kernel_scales": np.ones((1, 5), np.float32)}, "head/kernel_scales, head/kernel"),
        ({"head/kernel_scales": np.ones((1, 4), np.int64)}, "head/kernel_scales"),
        (
            {
                "head/kernel_scales": np.ones((1, 4), np.float32),
                "head/kernel_scales_scales": np.ones((1, 1), np.float32),
            },
            "head/kernel_scales_scales",
        ),
    ],
    ids=["none", "of another shape", "of whole numbers", "with scales of their own"],
)
def test_a_folder_with_a_kernel_whose_scales_are_wrong_is_refused(
    tmp_path: pathlib.Path, scales, wrong
) -> None:
    arrays = kernels.stored(params(), kind="int8")
    del arrays["head/kernel_scales"]
    safetensors_numpy.save_file(arrays | scales, tmp_path / exported.WEIGHTS)
    with pytest.raises(ValueError, match=f"does not fit model.json: see {wrong}$"):
        exported.read(tmp_path, OPTIONS["ViT of grey images"])
