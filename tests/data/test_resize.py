"""Only the kept part of a resized image is computed: the same pixels, with bounded memory."""

import numpy as np
import pytest

from tests import cli
from tests.data.test_preprocess import noise
from vit_jax.data import crops
from vit_jax.data.crops import Center, center_crop
from vit_jax.data.preprocess import EvalTransform, TrainTransform
from vit_jax.data.resize import resize, resize_part

INTERPOLATIONS = ("area", "linear", "bilinear_antialias", "bicubic_antialias", "lanczos_antialias")
SHAPES = [((40, 90), (32, 72)), ((40, 90), (64, 144)), ((90, 40), (90, 20)), ((5, 200), (20, 800))]


@pytest.mark.parametrize("interpolation", (*INTERPOLATIONS, "nearest"))
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_part_is_that_of_the_whole(interpolation, shape, size) -> None:
    image = noise(*shape)
    for part in ((0, 0, *size), (3, 7, 16, 11), (size[0] - 4, size[1] - 9, 4, 9)):
        top, left, height, width = part
        whole = resize(image, size, interpolation)[top : top + height, left : left + width]
        made = resize_part(image, size, part, interpolation)
        assert made.shape == whole.shape and made.dtype == np.uint8
        assert np.abs(made.astype(int) - whole).max() <= (
            2 if interpolation in ("area", "linear") else 1
        )


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(("shape", "channels"), [((30, 300), 3), ((300, 20), 1), ((9, 400), 4)])
def test_extreme_images_are_cut_as_ordinary_ones(
    shape, channels, interpolation, monkeypatch
) -> None:
    image = noise(*shape)[..., [0, 1, 2, 0]][..., :channels]
    ordinary = center_crop(image, (24, 16), share=0.875, interpolation=interpolation)
    monkeypatch.setattr(crops, "LARGE", 0)
    monkeypatch.setattr(crops, "resize", None)  # it must not be used
    extreme = center_crop(image, (24, 16), share=0.875, interpolation=interpolation)
    assert np.abs(extreme.astype(int) - ordinary).max() <= 2


LINES = """
import resource, sys
import numpy as np
from vit_jax.data.preprocess import EvalTransform, TrainTransform
from vit_jax.data.crops import Center, Inception, Shift
from vit_jax.data.counter import draw
numbers = draw("crop", seed=0, start=0, count=1)[0]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for shape in ((1, 1_000_000), (1_000_000, 1), (3, 400_000)):
    image = np.arange(np.prod(shape) * 3, dtype=np.uint8).reshape(*shape, 3)
    for interpolation in ("area", "linear", "bilinear_antialias", "bicubic_antialias", "nearest"):
        for fit in ("crop", "squash"):
            made = EvalTransform(size=(96, 64), interpolation=interpolation, fit=fit)(image)
            assert made.shape == (96, 64, 3)
        for crop in (Inception(), Shift(), Center()):
            train = TrainTransform(size=(96, 64), interpolation=interpolation, crop=crop)
            assert train(image, numbers).shape == (96, 64, 3)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_images_of_extreme_proportions_need_little_memory() -> None:
    """A line of a million pixels would be 30 GB at the height of this model."""
    done = cli.process(program=(*cli.PYTHON, "-c", LINES))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # KB


def test_a_model_sees_the_middle_of_a_line() -> None:
    line = np.zeros((1, 1_000_000, 3), np.uint8)
    line[:, 499_990:500_010] = 200
    for interpolation in INTERPOLATIONS:
        seen = EvalTransform(size=(64, 64), interpolation=interpolation)(line)  # type: ignore[arg-type]
        assert seen.min() >= 199
    train = TrainTransform(size=(64, 64), crop=Center(), interpolation="linear")
    assert train(line, np.zeros(40)).min() >= 199
