"""Augmentations on the host: the pixels of Pillow, timm's magnitudes, numbers keyed by sample."""

import math
from typing import Any

import numpy as np
import PIL.Image
import pytest
from PIL import ImageEnhance, ImageFilter, ImageOps

from vit_jax.data import augment
from vit_jax.data.arrays import ArraySource
from vit_jax.data.augment import (
    AUGMENTATIONS,
    colour_jitter,
    operations,
    randaugment_big_vision,
    warps,
)
from vit_jax.data.augment.colour_jitter import ColourJitter
from vit_jax.data.augment.randaugment_big_vision import RandAugmentBigVision
from vit_jax.data.augment.randaugment_timm import OPERATIONS, RandAugmentTimm
from vit_jax.data.augment.three_augment import ThreeAugment
from vit_jax.data.counter import NUMBERS, draw
from vit_jax.data.crops import Inception
from vit_jax.data.pipeline import train_batches
from vit_jax.data.preprocess import TrainTransform

RANDOM = np.random.default_rng(0)
FILL = (124, 116, 104)


def waves(height: int, width: int) -> np.ndarray:
    """Colours that change smoothly and at edges, like those of a photo."""
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / 9 + 2), np.cos(y / 7) * np.sin(x / 31), np.sin((x + y) / 5) / 2]
    smooth = 120 + 90 * np.stack(planes, -1) + 60 * ((x // 16 + y // 11) % 2)[..., None]
    return (smooth + RANDOM.normal(0, 4, (height, width, 3))).clip(0, 255).astype(np.uint8)


IMAGES = {
    "photo": waves(96, 112),
    "noise": RANDOM.integers(0, 256, (33, 47, 3), dtype=np.uint8),
    "few values": RANDOM.integers(100, 103, (70, 9, 3), dtype=np.uint8),
    "one colour": np.full((5, 7, 3), 9, np.uint8),
    "tiny": RANDOM.integers(0, 256, (2, 2, 3), dtype=np.uint8),
    "grey": waves(40, 40)[..., :1],
}
FACTORS = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.93, 1.0, 1.1, 1.3, 1.7, 1.9, *RANDOM.uniform(0.1, 2, 9)]


def pillow(image: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def assert_equal(found: np.ndarray, expected: PIL.Image.Image, *, within: int = 0) -> None:
    wanted = np.asarray(expected).reshape(found.shape).astype(int)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max(initial=0) <= within


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> np.ndarray:
    return IMAGES[request.param]


def test_operations_of_tables_have_the_bits_of_pillow(image) -> None:
    assert_equal(operations.invert(image), ImageOps.invert(pillow(image)))
    assert_equal(operations.autocontrast(image), ImageOps.autocontrast(pillow(image)))
    assert_equal(operations.equalize(image), ImageOps.equalize(pillow(image)))
    grey = pillow(image).convert("L").convert(pillow(image).mode)
    assert_equal(operations.grey_image(image), grey)
    for threshold in range(0, 257, 8):
        expected = ImageOps.solarize(pillow(image), threshold)
        assert_equal(operations.solarize(image, threshold), expected)
    for added in range(0, 129, 8):
        table = [min(255, v + added) if v < 128 else v for v in range(256)]
        expected = pillow(image).point(table * image.shape[2])
        assert_equal(operations.solarize_add(image, added), expected)
    for bits in range(1, 9):
        assert_equal(operations.posterize(image, bits), ImageOps.posterize(pillow(image), bits))
    assert not operations.posterize(image, 0).any(), "Pillow 13 refuses 0 bits; it was black"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (operations.brightness, ImageEnhance.Brightness),
        (operations.contrast, ImageEnhance.Contrast),
        (operations.colour, ImageEnhance.Color),
        (operations.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_enhancements_have_the_bits_of_pillow(image, ours, theirs) -> None:
    for factor in FACTORS:
        assert_equal(ours(image, factor), theirs(pillow(image)).enhance(factor))


def test_blur_is_within_two_grey_levels_of_pillow(image) -> None:
    for sigma in (0.13, 0.37, 0.61, 0.94, 1.21, 1.58, 1.97):
        expected = pillow(image).filter(ImageFilter.GaussianBlur(sigma))
        assert_equal(operations.blur(image, sigma), expected, within=2)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("share", [0.3, -0.27, 0.051, -0.123, 0.0, 1.0])
def test_warps_are_within_one_grey_level_of_pillow(image, interpolation, share) -> None:
    height, width, channels = image.shape
    ours: Any = {"fill": FILL[:channels], "interpolation": interpolation}
    theirs: Any = {
        "resample": PIL.Image.Resampling[interpolation.upper()],
        "fillcolor": FILL if channels == 3 else FILL[0],
    }
    x, y = 1.5 * share * width, 1.5 * share * height
    for warp, amount, matrix in (
        (warps.shear_x, share, (1, share, 0, 0, 1, 0)),
        (warps.shear_y, share, (1, 0, 0, share, 1, 0)),
        (warps.translate_x, x, (1, 0, x, 0, 1, 0)),
        (warps.translate_y, y, (1, 0, 0, 0, 1, y)),
    ):
        expected = pillow(image).transform(
            (width, height), PIL.Image.Transform.AFFINE, matrix, **theirs
        )
        assert_equal(warp(image, amount, **ours), expected, within=1)
    for degrees in (100 * share, 90 * share):
        expected = pillow(image).rotate(degrees, **theirs)
        assert_equal(warps.rotate(image, degrees, **ours), expected, within=1)


@pytest.mark.parametrize("name", ["translate_x", "translate_y"])
@pytest.mark.parametrize(("side", "level"), [(50, 2.0), (100, 1.0), (300, 9.0)])
def test_half_a_pixel_is_rounded_to_timms_line(name, side, level) -> None:
    """Timm's product is (level / 10 * 0.45) * side; another order moves a whole line."""
    shape = (8, side, 3) if name == "translate_x" else (side, 8, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    augment = RandAugmentTimm(fill=FILL)
    for negative in (False, True):
        pixels = (level / 10 * 0.45 * (-1 if negative else 1)) * side
        matrix = (1, 0, pixels, 0, 1, 0) if name == "translate_x" else (1, 0, 0, 0, 1, pixels)
        expected = pillow(image).transform(
            (shape[1], shape[0]),
            PIL.Image.Transform.AFFINE,
            matrix,
            resample=PIL.Image.Resampling.BILINEAR,
            fillcolor=FILL,
        )
        got = augment.applied(name, image, level=level, negative=negative, interpolation="bilinear")
        assert_equal(got, expected, within=1)


@pytest.mark.parametrize("degrees", [30.0, -30.0, 15.0, 45.0, -60.0])
def test_a_turn_keeps_the_edge_of_a_narrow_image(degrees) -> None:
    """Pixels are exactly at the edge: Pillow's rounding of cosine and sine decides."""
    for shape in ((7, 1, 3), (1, 7, 3), (3, 33, 3), (7, 3, 3), (1, 1, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        expected = pillow(image).rotate(
            degrees, resample=PIL.Image.Resampling.BILINEAR, fillcolor=FILL
        )
        got = warps.rotate(image, degrees, fill=FILL, interpolation="bilinear")
        assert_equal(got, expected, within=1)


def timms(name: str, image: np.ndarray, level: float, sign: int, increasing: bool) -> Any:
    """The operation of timm's tables with Pillow, and how far ours may be from it."""
    picture, (height, width, _) = pillow(image), image.shape
    share = level / 10
    kwargs: Any = {"resample": PIL.Image.Resampling.BICUBIC, "fillcolor": FILL}
    affine = PIL.Image.Transform.AFFINE

    def moved(*matrix: float) -> PIL.Image.Image:
        return picture.transform(picture.size, affine, matrix, **kwargs)

    enhanced = max(0.1, 1 + sign * share * 0.9) if increasing else share * 1.8 + 0.1
    bits = 4 - int(share * 4) if increasing else int(share * 4)
    threshold = 256 - min(256, int(share * 256)) if increasing else min(256, int(share * 256))
    added = min(128, int(share * 110))
    table = [min(255, v + added) if v < 128 else v for v in range(256)]
    calls = {
        "autocontrast": lambda: ImageOps.autocontrast(picture),
        "equalize": lambda: ImageOps.equalize(picture),
        "invert": lambda: ImageOps.invert(picture),
        "rotate": lambda: picture.rotate(sign * share * 30, **kwargs),
        "posterize": lambda: (
            ImageOps.posterize(picture, bits) if bits else picture.point(lambda _: 0)
        ),
        "solarize": lambda: ImageOps.solarize(picture, threshold),
        "solarize_add": lambda: picture.point(table * 3),
        "colour": lambda: ImageEnhance.Color(picture).enhance(enhanced),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(enhanced),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(enhanced),
        "sharpness": lambda: ImageEnhance.Sharpness(picture).enhance(enhanced),
        "shear_x": lambda: moved(1, sign * share * 0.3, 0, 0, 1, 0),
        "shear_y": lambda: moved(1, 0, 0, sign * share * 0.3, 1, 0),
        "translate_x": lambda: moved(1, 0, sign * share * 0.45 * width, 0, 1, 0),
        "translate_y": lambda: moved(1, 0, 0, 0, 1, sign * share * 0.45 * height),
    }
    return calls[name](), name.startswith(("rotate", "shear", "translate"))


@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_randaugment_has_timms_magnitudes(name, increasing) -> None:
    image, ours = IMAGES["photo"], RandAugmentTimm(increasing=increasing, fill=FILL)
    for level in (0.0, 1.3, 4.0, 7.5, 9.0, 9.77, 10.0):
        for sign in (1, -1):
            expected, warp = timms(name, image, level, sign, increasing)
            found = ours.applied(
                name, image, level=level, negative=sign < 0, interpolation="bicubic"
            )
            assert_equal(found, expected, within=int(warp))


def test_randaugment_draws_as_timm_does() -> None:
    """Operations uniform with replacement, a normal magnitude clipped, signs and probability."""
    numbers = draw("augment randaugment_timm", seed=0, start=0, count=4000)
    ours = RandAugmentTimm()
    levels = np.array([ours.level(n) for n in numbers[:, 2]])
    assert levels.max() == 10 and levels.min() > 6.5
    inner = levels[levels < 10]
    assert abs(np.median(levels) - 9) < 0.05 and abs((levels == 10).mean() - 0.0228) < 0.01
    assert 0.42 < inner.std() < 0.5
    uniform = RandAugmentTimm(magnitude_std=101.0, magnitude=8.0)
    assert uniform.level(0.25) == 2
    assert RandAugmentTimm(magnitude_std=0.0).level(0.999) == 9
    assert RandAugmentTimm(magnitude=20.0).level(0.5) == 10
    assert RandAugmentTimm(magnitude=20.0, magnitude_max=15.0).level(0.5) == 15
    assert math.isfinite(ours.level(0.0)) and ours.level(0.0) < 6
    image = IMAGES["photo"]
    never, row = RandAugmentTimm(probability=0.0), numbers[0]
    np.testing.assert_array_equal(never(image, numbers=row), image)
    changed = [not np.array_equal(ours(image, numbers=row), image) for row in numbers[:300]]
    assert 0.65 < np.mean(changed) < 0.8, "three of four images, but few operations change nothing"


def numbers_for(operations: tuple[str, ...], *rows: tuple[str, list[float]]) -> np.ndarray:
    """The numbers of a sample that choose these operations, each with its other numbers."""
    used = [
        number
        for name, others in rows
        for number in ((operations.index(name) + 0.5) / len(operations), *others)
    ]
    return np.array(used + [0.0] * (NUMBERS - len(used)))


def test_randaugment_takes_five_numbers_for_each_of_its_operations() -> None:
    """Which, whether, how strong, which way, and how to interpolate."""
    image, ours = IMAGES["photo"], RandAugmentTimm(magnitude_std=101.0, magnitude=8.0, fill=FILL)
    first = ours.applied("shear_x", image, level=4.0, negative=True, interpolation="bicubic")
    both = ours.applied("colour", first, level=2.0, negative=False, interpolation="bilinear")
    shear = ("shear_x", [0.49, 0.5, 0.49, 0.5])
    for whether, expected in ((0.0, both), (0.5, first)):  # its probability is 0.5
        numbers = numbers_for(OPERATIONS, shear, ("colour", [whether, 0.25, 0.5, 0.49]))
        np.testing.assert_array_equal(ours(image, numbers=numbers), expected)


def test_colour_jitter_takes_the_order_from_its_first_numbers() -> None:
    image, jitter = IMAGES["photo"], ColourJitter(hue=0.5)
    numbers = np.array([0.6, 0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 1.0 - 1e-9])
    factors = [jitter.factor(kind, number) for kind, number in enumerate(numbers[4:])]
    expected = colour_jitter.jittered(image, [1, 3, 0, 2], factors)
    np.testing.assert_array_equal(jitter(image, numbers=numbers), expected)


@pytest.mark.parametrize("shift", [0.1, 0.5, -0.1, -0.5])
def test_colour_jitter_is_torchvisions_for_the_same_draws(shift) -> None:
    image = IMAGES["photo"]
    factors = [1.21, 0.77, 1.34, shift]
    kinds = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
    for order in ([0, 1, 2, 3], [2, 3, 0, 1], [3, 1, 2, 0]):
        expected = pillow(image)
        for kind in order:
            if kind < 3:
                expected = kinds[kind](expected).enhance(factors[kind])
            else:
                hue, saturation, value = expected.convert("HSV").split()
                turned = (np.asarray(hue).astype(int) + int(factors[3] * 255)) % 256
                hue = PIL.Image.fromarray(turned.astype(np.uint8))
                expected = PIL.Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        assert_equal(colour_jitter.jittered(image, order, factors), expected)
    jitter = ColourJitter(brightness=0.4, contrast=2.0, saturation=0.0, hue=0.1)
    assert jitter.factor(0, 0.0) == 0.6 and jitter.factor(0, 0.5) == 1.0
    assert jitter.factor(1, 0.0) == 0.0 and jitter.factor(1, 0.5) == 1.5
    assert jitter.factor(2, 0.3) is None and jitter.factor(3, 0.0) == -0.1


def test_three_augment_has_one_of_three_then_jitter() -> None:
    image, none = IMAGES["photo"], ThreeAugment(jitter=0.0)
    numbers = np.full(NUMBERS, 0.5)
    for first, expected in (
        (0.1, operations.grey_image(image)),
        (0.5, operations.solarize(image, 128)),
        (0.9, operations.blur(image, 1.05)),
    ):
        numbers[0] = first
        np.testing.assert_array_equal(none(image, numbers=numbers), expected)
        numbers[6:9] = (0.8, 0.3, 0.6)
        found = ThreeAugment()(image, numbers=numbers)
        expected = operations.colour(
            operations.contrast(operations.brightness(expected, 1.18), 0.88), 1.06
        )
        np.testing.assert_array_equal(found, expected)


HOST = {name: kind() for name, kind in AUGMENTATIONS.items() if augment.on_host([kind()])}


@pytest.mark.parametrize("name", HOST)
def test_an_augmentation_of_the_host_is_a_pure_function_of_image_and_numbers(name) -> None:
    numbers = draw("any", seed=1, start=0, count=8)
    for image in IMAGES.values():
        before = image.copy()
        for row in numbers:
            found = HOST[name](image, numbers=row)
            assert found.shape == image.shape and found.dtype == np.uint8
            np.testing.assert_array_equal(found, HOST[name](image, numbers=row))
        np.testing.assert_array_equal(image, before)


def batches(rows: slice, *, first: int, threads: int, files: bool = False) -> list[np.ndarray]:
    images = RANDOM.__class__(np.random.PCG64(3)).integers(0, 256, (20, 16, 12), dtype=np.uint8)
    source = ArraySource(name="a", class_names=("x",), images=images, labels=np.zeros(20, np.int32))
    transform = TrainTransform(size=(12, 12), crop=Inception(), augmentations=(*HOST.values(),))
    found = train_batches(
        Records(source) if files else source,
        transform,
        seed=4,
        batch_size=6,
        rows=rows,
        start_step=first,
        num_steps=4,
        threads=threads,
    )
    return [batch["image"] for batch in found]


class Records:
    """A source that is read one record at a time, like files."""

    def __init__(self, source: ArraySource) -> None:
        self.name, self.class_names, self.read = source.name, source.class_names, source.read
        self._length = len(source)

    def __len__(self) -> int:
        return self._length


def test_augmented_batches_do_not_depend_on_threads_processes_start_or_source() -> None:
    whole = np.stack(batches(slice(0, 6), first=0, threads=1))
    assert len(np.unique(whole.reshape(24, -1), axis=0)) == 24
    for files in (False, True):
        parts = [batches(slice(i, i + 2), first=2, threads=3, files=files) for i in (0, 2, 4)]
        later = np.stack([np.concatenate(step) for step in zip(*parts, strict=True)])
        np.testing.assert_array_equal(later, whole[2:])


def test_the_numbers_of_a_sample_are_those_of_its_stream() -> None:
    images = IMAGES["photo"][None, :, :, :]
    source = ArraySource(name="a", class_names=("x",), images=images, labels=np.zeros(1, np.int32))
    transform = TrainTransform(size=(24, 24), crop=Inception(), augmentations=(ThreeAugment(),))
    (batch,) = train_batches(source, transform, seed=9, batch_size=4, start_step=5, num_steps=6)
    crops, numbers = (draw(s, seed=9, start=20, count=4) for s in ("crop", "augment three_augment"))
    for row in range(4):
        crop = transform(images[0], crops[row])
        np.testing.assert_array_equal(
            batch["image"][row], ThreeAugment()(crop, numbers=numbers[row])
        )


@pytest.mark.parametrize(
    ("names", "channels", "message"),
    [
        (
            ("flip", "three_augment", "value_range"),
            3,
            "three_augment runs on the host, before flip, which runs on the device: put three_aug",
        ),
        (("three_augment", "value_range"), 4, "1 or 3 channels, and the model has 4: leave it out"),
        (("three_augment", "flip"), 3, "lacks value_range"),
    ],
)
def test_an_order_that_cannot_work_is_refused(names, channels, message) -> None:
    kinds = [AUGMENTATIONS[name]() for name in names]
    with pytest.raises(ValueError, match=message):
        augment.check(kinds, gives=frozenset(), channels=channels)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (RandAugmentTimm, {"layers": 0}),
        (RandAugmentTimm, {"layers": 9}),
        (RandAugmentTimm, {"probability": 1.5}),
        (RandAugmentTimm, {"magnitude": -1.0}),
        (RandAugmentTimm, {"magnitude": math.nan}),
        (RandAugmentTimm, {"magnitude_std": math.inf}),
        (RandAugmentTimm, {"magnitude_max": -1.0}),
        (RandAugmentTimm, {"fill": (1, 2, 300)}),
        (ColourJitter, {"brightness": -0.1}),
        (ColourJitter, {"hue": 0.6}),
        (ColourJitter, {"contrast": math.nan}),
        (ThreeAugment, {"jitter": -1.0}),
    ],
)
def test_a_value_that_cannot_be_is_refused(kind, fields) -> None:
    (name,) = fields
    with pytest.raises(ValueError, match=f"'s {name} is "):
        kind(**fields)


def test_the_fill_colour_is_the_mean_of_the_model() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert RandAugmentTimm().bound(mean=mean, std=std).fill == FILL
    assert RandAugmentTimm(fill=(1, 2, 3)).bound(mean=mean, std=std).fill == (1, 2, 3)
    with pytest.raises(ValueError, match="a value for each of the 3 channels"):
        RandAugmentTimm(fill=(1,)).bound(mean=mean, std=std)
    with pytest.raises(ValueError, match="leave it out"):
        ColourJitter(brightness=0, contrast=0, saturation=0)


def tensorflows(name: str, image: np.ndarray, magnitude: float, sign: int) -> np.ndarray:
    """What big_vision's operation gives, by its definition, pixel by pixel where it moves."""
    share, (height, width, _) = magnitude / 10, image.shape
    factor, float_image = np.float32(share * 1.8 + 0.1), image.astype(np.float32)

    def blend(first: Any) -> np.ndarray:
        first = np.asarray(first, np.float32)
        return (first + factor * (float_image - first)).clip(0, 255).astype(np.uint8)

    if name == "contrast":
        return blend(np.full_like(image, min(255, height * width // 256)))
    if name == "brightness":
        return blend(np.zeros_like(image))
    if name == "solarize":
        return np.where(image < int(share * 256) % 256, image, 255 - image)
    if name == "solarize_add":
        added = np.minimum(image.astype(int) + int(share * 110), 255)
        return np.where(image < 128, added, image).astype(np.uint8)
    if name == "posterize":
        shift = min(8 - int(share * 4), 7) if share <= 2 else 7
        return image >> shift << shift
    found = np.full_like(image, 128)
    for y in range(height):
        for x in range(width):
            at_x = {"shear_x": x + sign * share * 0.3 * y, "translate_x": x + sign * share * 100}
            at_y = {"shear_y": y + sign * share * 0.3 * x, "translate_y": y + sign * share * 100}
            from_x, from_y = (
                math.floor(abs(place) + 0.5) * (1 if place >= 0 else -1)
                for place in (at_x.get(name, x), at_y.get(name, y))
            )
            if 0 <= from_x < width and 0 <= from_y < height:
                found[y, x] = image[from_y, from_x]
    return found


@pytest.mark.parametrize("magnitude", [3.0, 10.0, 15.0, 20.0])
def test_randaugment_of_big_vision_has_its_levels_and_its_pixels(magnitude) -> None:
    image, ours = IMAGES["photo"], RandAugmentBigVision(magnitude=magnitude)
    names = ("contrast", "brightness", "solarize", "solarize_add", "posterize")
    for name in (*names, "shear_x", "shear_y", "translate_x", "translate_y"):
        for sign in (1, -1):
            found = ours.applied(name, image, negative=sign < 0, place=(0, 0))
            differs = (found != tensorflows(name, image, magnitude, sign)).any(-1)
            # Places at half a pixel are rounded in float32 there and in float64 here.
            most = 0.1 if name.startswith("shear") else 0
            assert differs.mean() <= most, (name, sign)


def test_cutout_and_contrast_of_big_vision_depend_on_the_size() -> None:
    ours = RandAugmentBigVision(magnitude=5.0)
    black = np.zeros((96, 112, 3), np.uint8)
    cut = ours.applied("cutout", black, negative=False, place=(0.5, 0.0))[..., 0]
    rows, columns = np.nonzero(cut == 128)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 67, 0, 19)
    assert (cut == 128).sum() == 40 * 20
    np.testing.assert_array_equal(
        ours.applied("colour", IMAGES["grey"], negative=False, place=(0, 0)), IMAGES["grey"]
    )
    turned = ours.applied("rotate", black + 9, negative=False, place=(0, 0))
    assert (turned == 128).any() and (turned[48, 56] == 9).all()


def test_big_visions_contrast_is_around_the_number_of_pixels() -> None:
    """The sum of a histogram by its 256 bins, cut to an integer, at most white."""
    ours = RandAugmentBigVision(magnitude=15.0)
    for shape, level, value in (((15, 51), 2, 10), ((300, 300), 255, 200)):
        image = np.full((*shape, 3), value, np.uint8)
        found = ours.applied("contrast", image, negative=False, place=(0, 0))
        assert (found == int(level + 2.8 * (value - level))).all()


def test_randaugment_of_big_vision_takes_four_numbers_for_each_of_its_operations() -> None:
    """Which, which way, and the row and the column of the middle of a square."""
    image, ours = IMAGES["photo"], RandAugmentBigVision(magnitude=4.0)
    square = ("cutout", [0, 0.25, 0.75])
    for sign, negative in ((0.49, True), (0.5, False)):
        shear = ("shear_y", [sign, 0, 0])
        numbers = numbers_for(randaugment_big_vision.OPERATIONS, shear, square)
        expected = ours.applied("shear_y", image, negative=negative, place=(0, 0))
        expected = ours.applied("cutout", expected, negative=False, place=(0.25, 0.75))
        np.testing.assert_array_equal(ours(image, numbers=numbers), expected)


@pytest.mark.parametrize("fields", [{"layers": 11}, {"magnitude": 31.0}, {"magnitude": math.nan}])
def test_big_visions_values_that_cannot_be_are_refused(fields) -> None:
    with pytest.raises(ValueError, match=f"'s {next(iter(fields))} is "):
        RandAugmentBigVision(**fields)
