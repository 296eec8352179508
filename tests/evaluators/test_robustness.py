"""Corruptions are those of ImageNet-C, and depend on the image only, not on batches or devices."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from tests.evaluators.test_answers import NAMES, RNG
from tests.models import tiny
from vit_jax.commands import corruption_table
from vit_jax.data.arrays import ArraySource
from vit_jax.data.corruptions import _NOISE, CORRUPTIONS, Corrupt
from vit_jax.data.record import Record
from vit_jax.evaluators import Robustness
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import evaluation

IMAGE = ndimage.gaussian_filter(RNG.random((32, 48, 3)), (2, 2, 0))
IMAGE = (255 * (IMAGE - IMAGE.min()) / np.ptp(IMAGE)).astype(np.uint8)
DRAWS = np.random.default_rng


def applied(name: str, image: np.ndarray, severity: int) -> np.ndarray:
    found = CORRUPTIONS[name](image, severity, DRAWS(0))
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    return found


def test_each_corruption_is_that_of_imagenet_c() -> None:
    point = np.zeros((33, 33, 1), np.uint8)
    point[16, 16] = 255
    at = np.arange(-16, 17)
    bell = np.exp(-(at**2) / (2 * 2.0**2)) * (abs(at) <= 8)  # sigma 2, cut off after 4 sigma
    bell = np.outer(bell, bell) / bell.sum() ** 2
    assert np.abs(applied("blur", point, 2)[..., 0] - np.floor(255 * bell)).max() <= 1
    block = np.zeros((45, 45, 3), np.uint8)
    block[21:24, 21:24] = 255
    disk = applied("defocus", block, 5)  # of radius 10
    assert disk[22, 22 + 9].all() and not disk[22, 22 + 14].any() and not disk[32, 32].any()
    values = IMAGE / 255
    mean = values.mean((0, 1))
    low = np.floor(255 * ((values - mean) * 0.2 + mean))
    assert np.abs(applied("contrast", IMAGE, 3) - low).max() <= 1
    file = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(file, "JPEG", quality=10)
    np.testing.assert_array_equal(applied("jpeg", IMAGE, 4), np.asarray(PIL.Image.open(file)))
    blocks = applied("pixelate", IMAGE, 2)  # half the size and back: blocks of 2x2 pixels
    mean = IMAGE.reshape(16, 2, 24, 2, 3).mean((1, 3))
    assert np.abs(blocks - mean.repeat(2, axis=0).repeat(2, axis=1)).max() <= 1
    grey = np.full((200, 200, 3), 128, np.uint8)
    assert np.std(applied("noise", grey, 2) / 255) == pytest.approx(0.12, rel=0.02)


@pytest.mark.parametrize("severity", range(1, 6))
def test_each_severity_is_that_of_imagenet_c(severity) -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    numbers = 128 / 255 + DRAWS(0).normal(size=grey.shape, scale=scale)
    expected = (255 * np.clip(numbers, 0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(applied("noise", grey, severity), expected)
    file = io.BytesIO()
    PIL.Image.fromarray(IMAGE).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    expected = np.asarray(PIL.Image.open(file))
    np.testing.assert_array_equal(applied("jpeg", IMAGE, severity), expected)
    share = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    low = applied("contrast", IMAGE, severity).std((0, 1)) / IMAGE.std((0, 1))
    np.testing.assert_allclose(low, share, rtol=0.1)


def test_noise_belongs_to_the_image_and_the_severity() -> None:
    drawn = [Corrupt("noise", severity)(IMAGE, number) for severity, number in ((1, 7), (2, 7))]
    for severity, found in enumerate(drawn, 1):
        expected = CORRUPTIONS["noise"](IMAGE, severity, DRAWS((_NOISE, severity, 7)))
        np.testing.assert_array_equal(found, expected)
    other = Corrupt("noise", 1)(IMAGE, 8)
    assert not np.array_equal(other, drawn[0])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_more_and_grey_images_work(name) -> None:
    changes = [np.abs(applied(name, IMAGE, s).astype(float) - IMAGE).mean() for s in range(1, 6)]
    assert changes == sorted(changes) and changes[0] > 0
    applied(name, IMAGE[..., :1], 3)


class Counted(ArraySource):
    """A source that remembers which images were read."""

    def __init__(self, **fields) -> None:
        super().__init__(**fields)
        object.__setattr__(self, "reads", [])

    def read(self, index: int) -> Record:
        self.reads.append(index)
        return super().read(index)


def test_the_measure_is_that_of_images_that_were_corrupted_before() -> None:
    source = ArraySource(
        name="noise",
        class_names=NAMES,
        images=RNG.integers(0, 256, (21, 16, 24, 3), dtype=np.uint8),
        labels=RNG.integers(0, 7, 21).astype(np.int32),
    )
    model = tiny.model(num_classes=7)
    model.preprocessing = Preprocessing(image_size=(16, 24), crop_pct=1.0)
    measured = Robustness(corruptions=("noise", "contrast"), severities=(1, 5))
    also = {"corrupt": measured}
    found = evaluation.evaluate_model(model, source, also=also, batch_size=8)
    counted = Counted(**vars(source))
    assert evaluation.evaluate_model(model, counted, also=also) == pytest.approx(found, rel=1e-6)
    reads = np.bincount(counted.reads, minlength=21)
    assert set(reads) == {2}, "each image is read once for top-1 and once for all corruptions"
    other = evaluation.evaluate_model(model, source, also=also, batch_size=16)
    assert found == pytest.approx(other, rel=1e-6)
    for name in measured.corruptions:
        for severity in measured.severities:
            images = [
                CORRUPTIONS[name](image, severity, DRAWS((_NOISE, severity, number)))
                for number, image in enumerate(source.images)
            ]
            before = dataclasses.replace(source, images=np.stack(images))
            expected = evaluation.evaluate_model(model, before, batch_size=8)["top1"]
            assert found[f"corrupt/top1_{name}_{severity}"] == expected
    both = [found[f"corrupt/top1_noise_{severity}"] for severity in (1, 5)]
    assert found["corrupt/top1_noise"] == pytest.approx(np.mean(both))
    table = corruption_table.lines(found, measured)
    assert [line.split()[0] for line in table] == ["top-1", "noise", "contrast", "mean"]
    assert table[1].split()[1:] == [f"{100 * x:.2f}" for x in (*both, np.mean(both))]
    assert len({len(line) for line in table}) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"corruptions": ("fog",)}, "corruptions has 'fog': choose some of noise, blur"),
        ({"severities": (0,)}, "severities has 0: choose some of 1, 2"),
        ({"corruptions": ()}, "name at least one"),
    ],
)
def test_what_is_not_known_is_refused(fields, said) -> None:
    with pytest.raises(ValueError, match=said):
        Robustness(**fields)
    if "corruptions" in fields and fields["corruptions"]:
        with pytest.raises(ValueError, match="--corrupt jpeg,fog: .*, or all"):
            corruption_table.evaluator("jpeg,fog")
