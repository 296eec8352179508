"""Pixels: decoding, crops and interpolations, against independent references."""

import io
import math
import pathlib
import tarfile
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from tests.compare import assert_close
from vit_jax import schema
from vit_jax.data.counter import draw
from vit_jax.data.crops import (
    ASPECT,
    Center,
    Crop,
    Inception,
    RandomResized,
    Shift,
    Simple,
    center_crop,
    inception_box,
    random_resized_box,
)
from vit_jax.data.options import DataConfig
from vit_jax.data.preprocess import (
    BrokenImageError,
    EvalTransform,
    TrainTransform,
    decode,
    eval_transform,
    train_transform,
)
from vit_jax.data.resize import resize

MOST = 1 - 2.0**-53  # the largest number that can be drawn


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    small = PIL.Image.fromarray(noise(5, 6))
    return np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC))


def encode(image: PIL.Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(shared: pathlib.Path) -> list[bytes]:
    with tarfile.open(shared / "data" / "imagenet_sample_200.tar") as archive:
        members = [m for m in archive if m.isfile()][:6]
        files = [archive.extractfile(m) for m in members]
        return [file.read() for file in files if file]


MODES = [(m, k) for m in ("RGB", "L", "P", "RGBA", "LA", "1") for k in ("PNG", "WEBP")]


@pytest.mark.parametrize(("mode", "kind"), [*MODES, ("RGB", "JPEG"), ("L", "JPEG")])
def test_decode_gives_rgb_whatever_the_file_holds(mode: str, kind: str) -> None:
    original = PIL.Image.fromarray(smooth(30, 40)).convert(mode)
    pixels = decode(encode(original, kind))
    assert pixels.shape == (30, 40, 3) and pixels.dtype == np.uint8
    expected = np.asarray(original.convert("RGBA").convert("RGB"), int)
    assert np.abs(pixels - expected).mean() <= (0 if kind == "PNG" else 16)


def test_decode_reads_cmyk() -> None:
    image = PIL.Image.fromarray(smooth(30, 40))
    cmyk = decode(encode(image.convert("CMYK"), "JPEG", quality=95))
    assert np.abs(cmyk - np.asarray(image, int)).mean() < 5


def test_decode_repeats_grey_arrays_and_passes_colour_ones() -> None:
    grey = noise(4, 5)[..., 0]
    np.testing.assert_array_equal(decode(grey), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(decode(noise(4, 5)), noise(4, 5))


def test_decode_of_photos_is_that_of_pillow_up_to_the_fast_transform(photos: list[bytes]) -> None:
    for data in photos:
        reference = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"), int)
        np.testing.assert_array_equal(decode(data, fast_dct=False), reference)
        difference = np.abs(decode(data) - reference)
        assert 0 < difference.mean() < 2 and difference.max() <= 30


def test_the_decoder_depends_on_the_interpolation(photos: list[bytes]) -> None:
    for interpolation, fast in (("area", True), ("linear", True), ("bicubic_antialias", False)):
        transform = EvalTransform(size=(8, 8), interpolation=interpolation)  # type: ignore[arg-type]
        np.testing.assert_array_equal(transform.decode(photos[0]), decode(photos[0], fast_dct=fast))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_truncated_and_garbled_files_are_broken(kind: str) -> None:
    data = encode(PIL.Image.fromarray(noise(64, 64)), kind)
    for broken in (data[: len(data) // 2], data[:8], b"", b"\xff\xd8" + b"x" * 50, b"<html>"):
        with pytest.raises(BrokenImageError, match="cannot decode"):
            decode(broken)


def test_small_file_of_a_huge_image_is_refused() -> None:
    bomb = encode(PIL.Image.new("1", (10_000, 10_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(BrokenImageError):
        decode(bomb)


def weights(source: int, target: int, interpolation: str) -> np.ndarray:
    """(target, source) weights of a resize along one axis, from the definition."""
    scale = source / target
    edges = np.arange(source)
    if interpolation == "area":
        low, high = np.arange(target)[:, None] * scale, np.arange(1, target + 1)[:, None] * scale
        overlap = np.minimum(high, edges + 1) - np.maximum(low, edges)
        return np.clip(overlap, 0, None) / scale
    center = np.clip((np.arange(target)[:, None] + 0.5) * scale - 0.5, 0, source - 1)
    return np.clip(1 - np.abs(center - edges), 0, None)


@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("target", [(17, 23), (20, 15), (40, 30)])
def test_interpolations_without_antialias_follow_their_definition(
    interpolation: str, target: tuple[int, int]
) -> None:
    image = noise(40, 46)
    rows, columns = weights(40, target[0], interpolation), weights(46, target[1], interpolation)
    expected = np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns)
    difference = np.abs(resize(image, target, interpolation) - expected)  # type: ignore[arg-type]
    assert difference.max() <= 1.01


def test_area_is_linear_if_the_image_grows() -> None:
    np.testing.assert_array_equal(
        resize(noise(20, 30), (40, 60), "area"), resize(noise(20, 30), (40, 60), "linear")
    )


@pytest.mark.parametrize("shape", [(40, 30), (20, 45)])
def test_area_is_linear_if_one_side_grows(shape: tuple[int, int]) -> None:
    image = noise(30, 40)
    np.testing.assert_array_equal(resize(image, shape, "area"), resize(image, shape, "linear"))
    assert not np.array_equal(resize(image, (20, 25), "area"), resize(image, (20, 25), "linear"))


@pytest.mark.parametrize(
    "interpolation", ["bilinear_antialias", "bicubic_antialias", "lanczos_antialias", "nearest"]
)
def test_antialiased_interpolations_are_those_of_pillow(interpolation: str) -> None:
    method = PIL.Image.Resampling[interpolation.split("_")[0].upper()]
    expected = PIL.Image.fromarray(noise(50, 40)).resize((13, 17), method)
    result = resize(noise(50, 40), (17, 13), interpolation)  # type: ignore[arg-type]
    np.testing.assert_array_equal(result, np.asarray(expected))


def test_evaluation_of_a_photo_is_resize_256_and_crop_224(photos: list[bytes]) -> None:
    image = decode(photos[0])
    h, w = image.shape[:2]
    scale = 256 / min(h, w)
    resized = resize(image, (round(h * scale), round(w * scale)), "area")
    assert min(resized.shape[:2]) == 256
    top, left = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    expected = resized[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(EvalTransform(size=(224, 224))(image), expected)


def test_the_longer_side_is_rounded_for_images_that_are_not_square() -> None:
    """As timm: the sides of the crop are 26 and 22, and 60 * 22 / 34 is 38.8."""
    image = smooth(60, 34)
    resized = resize(image, (39, 22), "bicubic_antialias")
    np.testing.assert_array_equal(
        center_crop(image, (24, 20), share=0.9, interpolation="bicubic_antialias"),
        resized[8:32, 1:21],
    )


@pytest.mark.parametrize(("interpolation", "rows"), [("area", 40), ("bicubic_antialias", 39)])
def test_fractional_sides_are_rounded_as_in_the_library_of_the_interpolation(
    interpolation: str, rows: int
) -> None:
    """The short side is 24 / 0.9 = 26.7, rounded down by every library; the long side is 39.6."""
    image = smooth(93, 61)
    resized = resize(image, (rows, 26), interpolation)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        center_crop(image, (24, 24), share=0.9, interpolation=interpolation),  # type: ignore[arg-type]
        resized[8:32, 1:25],
    )


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (64, 64), (7, 90), (24, 42), (23, 41)])
@pytest.mark.parametrize("size", [(32, 56), (56, 32), (24, 42)])
def test_evaluation_of_any_shape_keeps_the_aspect_ratio_and_the_centre(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    # The pixels are their own coordinates, so the crop shows where it was cut.
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    image = np.stack([y * 255 / shape[0], x * 255 / shape[1], y * 0], -1).astype(np.uint8)
    crop = center_crop(image, size, share=0.875, interpolation="bilinear_antialias").astype(float)
    assert crop.shape == (*size, 3)
    middle = crop[size[0] // 2 - 1 : size[0] // 2 + 1, size[1] // 2 - 1 : size[1] // 2 + 1]
    limit = min(shape[0] / size[0], shape[1] / size[1])  # source pixels per target pixel
    allowed = 2 + 0.75 * max(limit, 1) * 255 / np.array(shape)
    assert (np.abs(middle[..., :2].mean((0, 1)) - 127.5) < allowed).all()
    seen_rows = np.ptp(crop[..., 0]) / 255 * shape[0]
    seen_columns = np.ptp(crop[..., 1]) / 255 * shape[1]
    assert seen_rows == pytest.approx(0.875 * limit * size[0], rel=0.2, abs=3)
    assert seen_columns == pytest.approx(0.875 * limit * size[1], rel=0.2, abs=3)


def test_evaluation_at_the_images_own_size_changes_nothing() -> None:
    transform = eval_transform(DataConfig(crop_pct=1.0), size=(28, 28))
    np.testing.assert_array_equal(transform(noise(28, 28)), noise(28, 28))


@pytest.mark.parametrize("target", [(224, 224), (32, 56)])
def test_inception_boxes_lie_inside_and_cover_the_allowed_areas_and_ratios(
    target: tuple[int, int],
) -> None:
    numbers = draw("crop", seed=0, start=0, count=3000)
    boxes = [inception_box((375, 500), target, area=(0.05, 1.0), numbers=n) for n in numbers]
    top, left, height, width = np.array(boxes).T
    assert min(top) >= 0 and min(left) >= 0
    assert max(top + height) <= 375 and max(left + width) <= 500
    area = height * width / (375 * 500)
    ratio = width / height / (target[1] / target[0])
    assert 0.05 <= area.min() < 0.06 and 0.6 < area.max() <= 1
    assert ASPECT[0] - 0.02 < ratio.min() < 0.77 and 1.3 < ratio.max() < ASPECT[1] + 0.02
    # The height is uniform, so small boxes are more frequent than with a uniform area.
    assert 0.25 < np.median(area) < 0.45


def test_the_largest_numbers_give_the_tallest_box_at_the_far_edge() -> None:
    """The smallest numbers give the lowest box at the near edge: every box can be drawn."""

    def box(*numbers: float, **fields: object) -> tuple[int, int, int, int]:
        area = {"area": (0.25, 1.0)} | fields
        return inception_box((60, 80), (50, 50), numbers=np.array([*numbers] * 10), **area)

    square = 0.25 / (ASPECT[1] - ASPECT[0])  # the number of an aspect ratio of 1
    assert box(square, MOST, 0, 0) == (0, 0, 60, 60)
    assert box(square, MOST, MOST, MOST) == (0, 20, 60, 60)
    assert box(square, 0, MOST, MOST) == (60 - 35, 80 - 35, 35, 35)  # the least area: 34.6 squared
    assert box(square, MOST, MOST, 0, area=(0.25, 0.48)) == (60 - 48, 0, 48, 48)
    assert box(0, MOST, 0, MOST) == (0, 80 - 45, 60, 45)
    assert box(MOST, MOST, 0, 0) == (0, 0, 60, 80)
    upright = {"area": (0.25, 1.0), "numbers": np.array([MOST, MOST, 0, 0] * 10)}
    assert inception_box((80, 60), (50, 50), **upright) == (0, 0, 45, 60)


def test_a_box_that_does_not_fit_is_drawn_again_with_the_next_numbers() -> None:
    square = 0.25 / (ASPECT[1] - ASPECT[0])
    numbers = np.array([(square, MOST, 0, 0)] * 9 + [(square, 0, MOST, 0)]).ravel()
    box = inception_box((60, 80), (50, 50), area=(0.25, 0.5), numbers=numbers)
    assert box == (60 - 35, 0, 35, 35), "the others are 49 x 49: more than half of the image"


def test_inception_falls_back_to_the_largest_central_box_with_an_allowed_ratio() -> None:
    numbers = draw("crop", seed=0, start=0, count=1)[0]
    assert inception_box((10, 1000), (224, 224), area=(0.5, 1.0), numbers=numbers) == (
        0,
        493,
        10,
        13,
    )
    box = inception_box((1000, 10), (224, 224), area=(0.5, 1.0), numbers=numbers)
    assert box == (493, 0, 13, 10)
    assert inception_box((1, 1), (224, 224), area=(0.05, 1.0), numbers=numbers) == (0, 0, 1, 1)


@pytest.mark.parametrize("target", [(224, 224), (32, 56)])
def test_random_resized_boxes_have_the_areas_and_ratios_of_torchvision(
    target: tuple[int, int],
) -> None:
    """Quartiles of 20,000 boxes of torchvision 0.29 for area (0.08, 1) of a 500 x 375 image."""
    numbers = draw("crop", seed=0, start=0, count=6000)
    boxes = [random_resized_box((375, 500), target, area=(0.08, 1.0), numbers=n) for n in numbers]
    top, left, height, width = np.array(boxes).T
    assert min(top) == 0 and min(left) == 0
    assert max(top + height) == 375 and max(left + width) == 500
    area = height * width / (375 * 500)
    log_ratio = np.log(width / height / (target[1] / target[0]))
    assert_close(np.abs(log_ratio).max(), np.log(4 / 3), atol=0.02)
    if target == (224, 224):
        assert_close(np.quantile(area, (0.25, 0.5, 0.75)), (0.255, 0.424, 0.594), atol=0.015)
        assert_close(area.mean(), 0.435, atol=0.01)


def test_random_resized_draws_the_area_then_the_ratio_then_the_corner() -> None:
    """The formula of torchvision's get_params, for the second box: the first is too tall."""
    numbers = np.array([(1.0, 0.0, 0, 0)] + [(0.25, 0.75, 0.5, MOST)] * 9).ravel()
    area = 60 * 80 * (0.2 + 0.25 * 0.8)
    ratio = math.exp(math.log(3 / 4) + 0.75 * (math.log(4 / 3) - math.log(3 / 4)))
    height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
    box = random_resized_box((60, 80), (50, 50), area=(0.2, 1.0), numbers=numbers)
    assert box == (int(0.5 * (61 - height)), 80 - width, height, width)


def test_random_resized_falls_back_to_the_largest_central_box_or_limits_the_first() -> None:
    numbers = draw("crop", seed=0, start=0, count=1)[0]
    assert random_resized_box((10, 1000), (224, 224), area=(0.5, 1.0), numbers=numbers) == (
        *(0, 493),
        *(10, 13),
    )
    wide = random_resized_box(
        (10, 1000), (224, 224), area=(0.5, 1.0), limited=True, numbers=np.zeros(40)
    )
    height, width = 10, round(math.sqrt(5000 * 3 / 4))
    assert wide == (0, 0, height, width), "MAE's util/crop.py: one draw, cut to the image"
    for limited in (False, True):
        box = random_resized_box(
            (1, 1), (8, 8), area=(0.08, 1.0), limited=limited, numbers=np.zeros(40)
        )
        assert box == (0, 0, 1, 1)


@pytest.mark.parametrize("crop", [Inception(), RandomResized(), Simple(), Shift(shift=3), Center()])
@pytest.mark.parametrize("shape", [(40, 60), (8, 8), (1, 300)])
def test_training_crops_have_the_size_and_follow_the_numbers(
    crop: Crop, shape: tuple[int, int]
) -> None:
    transform = train_transform(DataConfig(crop=crop), size=(24, 32))
    numbers = draw("crop", seed=0, start=0, count=2)
    image = noise(*shape)
    first = transform(image, numbers[0])
    assert first.shape == (24, 32, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, transform(image, numbers[0]))
    if crop != Center() and shape == (40, 60):
        assert not np.array_equal(first, transform(image, numbers[1]))


def test_shift_moves_every_image_by_its_own_whole_pixels_and_fills_black() -> None:
    images = np.stack([noise(12, 10)] * 50) | 1  # nowhere black
    transform = TrainTransform(size=(12, 10), crop=Shift(shift=2))
    moved = transform.batch(images, draw("crop", seed=0, start=0, count=50))
    padded = np.pad(images[0], ((2, 2), (2, 2), (0, 0)))
    places = set()
    for image in moved:
        fits = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(image, padded[y : y + 12, x : x + 10])
        ]
        assert len(fits) == 1
        places.update(fits)
    assert len(places) > 15


def test_batch_of_images_gives_the_pixels_of_one_by_one() -> None:
    images, numbers = np.stack([noise(12, 10)] * 4), draw("crop", seed=0, start=9, count=4)
    for size in ((12, 10), (18, 15)):
        transform = TrainTransform(size=size, crop=Shift(shift=2))
        single = [transform(i, n) for i, n in zip(images, numbers, strict=True)]
        np.testing.assert_array_equal(transform.batch(images, numbers), single)


def test_the_first_number_of_a_shift_is_vertical_and_the_second_horizontal() -> None:
    image = noise(6, 5)
    transform = train_transform(DataConfig(crop=Shift(shift=2)), size=(6, 5))
    lowest = transform(image, np.array([0.0, 0.5] + [0.5] * 38))  # from two rows above
    assert not lowest[:2].any()
    np.testing.assert_array_equal(lowest[2:], image[:-2])
    left = transform(image, np.array([0.5, MOST] + [0.0] * 38))
    assert not left[:, -2:].any()
    np.testing.assert_array_equal(left[:, :-2], image[:, 2:])


@pytest.mark.parametrize("shape", [(60, 90), (90, 61), (24, 24)])
def test_a_simple_crop_is_any_part_of_the_resized_and_mirrored_image(
    shape: tuple[int, int],
) -> None:
    """torchvision: Resize(24), then RandomCrop(24, padding=4, padding_mode="reflect")."""
    image = noise(*shape)
    height, width = (24 * side // min(shape) for side in shape)
    resized = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BICUBIC)
    padded = np.pad(np.asarray(resized), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    data = DataConfig(crop=Simple(), interpolation="bicubic_antialias")
    transform = train_transform(data, size=(24, 24))
    rows, columns = height - 24 + 9, width - 24 + 9  # places
    for row in range(rows):
        for column in range(columns):
            numbers = np.array([(row + 0.5) / rows, (column + 0.5) / columns] + [0.0] * 38)
            cut = padded[row : row + 24, column : column + 24]
            np.testing.assert_array_equal(transform(image, numbers), cut)
    for number, row in ((0.0, 0), (MOST, rows - 1)):
        found = transform(image, np.array([number, 0.0] + [0.0] * 38))
        np.testing.assert_array_equal(found, padded[row : row + 24, :24])


def test_a_simple_crop_of_a_long_line_needs_the_memory_of_its_part_only() -> None:
    image = np.repeat(noise(8, 5_000), 10, axis=1)  # resized as a whole: 224 x 1,400,000 pixels
    transform = TrainTransform(size=(224, 224), crop=Simple(), interpolation="bicubic_antialias")
    tracemalloc.start()
    left = transform(image, np.array([0.5, 0.0] + [0.0] * 38))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left.shape == (224, 224, 3) and most < 10 * 2**20
    np.testing.assert_array_equal(left[:, :4], left[:, 8:4:-1])  # the edge is mirrored


def test_training_and_evaluation_use_their_own_fields_of_the_config() -> None:
    data = DataConfig(
        crop=Center(),
        crop_pct=0.5,
        eval_fit="squash",
        eval_interpolation="area",
        interpolation="linear",
    )
    image = noise(60, 90)
    whole = {"share": 0.5, "fit": "squash"}
    trained = train_transform(data, size=(24, 16))(image, np.zeros(40))
    np.testing.assert_array_equal(
        trained, center_crop(image, (24, 16), interpolation="linear", **whole)
    )
    seen = eval_transform(data, size=(24, 16))(image)
    np.testing.assert_array_equal(seen, center_crop(image, (24, 16), interpolation="area", **whole))
    assert not np.array_equal(trained, seen)


@pytest.mark.parametrize("interpolation", ["linear", "bicubic_antialias"])
def test_random_crops_are_resized_with_the_interpolation_of_training(interpolation: str) -> None:
    image, numbers = noise(60, 90), draw("crop", seed=0, start=0, count=1)[0]
    data = DataConfig(crop=Inception(crop_area=(0.2, 0.3)), interpolation=interpolation)  # type: ignore[arg-type]
    top, left, height, width = inception_box((60, 90), (24, 16), area=(0.2, 0.3), numbers=numbers)
    box = image[top : top + height, left : left + width]
    np.testing.assert_array_equal(
        train_transform(data, size=(24, 16))(image, numbers),
        resize(box, (24, 16), interpolation),  # type: ignore[arg-type]
    )
    shifted = train_transform(DataConfig(crop=Shift(), interpolation=interpolation), size=(24, 16))  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        shifted(image, numbers),
        center_crop(image, (24, 16), share=1.0, interpolation=interpolation),  # type: ignore[arg-type]
    )


def test_channels_and_orientation_reach_the_decoder() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    data = encode(PIL.Image.fromarray(smooth(30, 40)), "JPEG", exif=exif)
    for orientation, shape in ((False, (30, 40, 1)), (True, (40, 30, 1))):
        config = DataConfig(orientation=orientation)
        for make in (train_transform, eval_transform):
            assert make(config, size=(8, 8), channels=1).decode(data).shape == shape


@pytest.mark.parametrize(
    "changes",
    [
        *({"crop_area": (0.0, 1.0)}, {"crop_area": (0.6, 0.5)}, {"crop_area": (0.5, 1.01)}),
        *({"shift": -1, "crop": "shift"}, {"shift": 9, "crop": "shift"}),
        *({"crop_padding": -1, "crop": "simple"}, {"crop_padding": 4, "crop": "simple"}),
        *({"crop_pct": 0.0}, {"crop_pct": 1.5}),
    ],
)
def test_impossible_crops_are_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"config.data.{next(iter(changes))} is"):
        train_transform(schema.build(DataConfig, changes, "config.data"), size=(8, 8))
