"""The preprocessing in the files beside a checkpoint is read and applied in evaluation."""

import json

import numpy as np
import PIL.Image
import pytest

import vit_jax
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.data.counter import NUMBERS
from vit_jax.data.crops import Center
from vit_jax.data.options import DataConfig
from vit_jax.data.preprocess import EvalTransform, eval_transform, train_transform
from vit_jax.models import zoo
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import evaluation, run_config

SQUARE = {"height": 64, "width": 64}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
PROCESSORS = {
    "both sides": ({"size": SQUARE, "resample": 2}, {"fit": "squash", "crop_pct": 1.0}),
    "a number, by ViT's processor": (
        {"size": 64, "feature_extractor_type": "ViTFeatureExtractor"},
        {"fit": "squash", "crop_pct": 1.0, "interpolation": "bilinear_antialias"},
    ),
    "a number, by BiT's": (
        {"size": 64, "crop_size": 56, "image_processor_type": "BitImageProcessorFast"},
        {"fit": "crop_floor", "crop_pct": 0.875, "interpolation": "bicubic_antialias"},
    ),
    "a cut of squashed sides": (
        {"size": SQUARE, "crop_size": 56, "image_processor_type": "DeiTImageProcessor"},
        {"fit": "squash", "crop_pct": 0.875, "interpolation": "bicubic_antialias"},
    ),
    "a cut that is switched off": (
        {"size": 64, "crop_size": 56, "do_center_crop": False},
        {"fit": "squash", "crop_pct": 1.0},
    ),
    "a cut": (
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 48}}
        | {"do_center_crop": True, "resample": 1},
        {"fit": "crop_floor", "crop_pct": 0.875, "interpolation": "lanczos_antialias"},
    ),
    "ConvNext's share": (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.8},
        {"fit": "crop_floor", "crop_pct": 0.8},
    ),
    "ConvNext's large size": (
        {"size": {"shortest_edge": 384}, "crop_pct": 0.8},
        {"fit": "squash", "crop_pct": 1.0},
    ),
    "no mean": ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    "no rescaling": (
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        HALF,
    ),
    "another range": ({"rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": [1]}, HALF),
    "nearest": ({"resample": 0}, {"interpolation": "nearest"}),
}
REFUSED = {
    "resample 4": {"resample": 4},
    "do_resize false": {"do_resize": False},
    "size {'longest_edge': 64}": {"size": {"longest_edge": 64}},
    "size {'shortest_edge': 64} and no crop": {"size": {"shortest_edge": 64}},
    "crop_size 80: the crop must be within": {"size": 64, "crop_size": 80, "do_center_crop": True},
    "with different aspect ratios": {"size": SQUARE, "do_center_crop": True}
    | {"crop_size": {"height": 56, "width": 48}},
    "rescale_factor 0": {"rescale_factor": 0},
    "not a number for each of 3 channels": {"image_mean": [0.5, 0.5]},
}


@pytest.mark.parametrize(("file", "expected"), PROCESSORS.values(), ids=list(PROCESSORS))
def test_processors_of_transformers(file, expected):
    found = vars(released((56, 56), Hints(preprocessor=file)))
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value)), name


@pytest.mark.parametrize(("what", "file"), REFUSED.items(), ids=list(REFUSED))
def test_unsupported_preprocessing_is_refused_in_one_line(what, file):
    with pytest.raises(ValueError, match="correct that file, or remove it") as error:
        released((56, 56), Hints(preprocessor=file))
    assert what in str(error.value) and "\n" not in str(error.value)


def test_timms_crop_mode_squash_is_read():
    config = {"crop_pct": 0.9, "crop_mode": "squash", "interpolation": "bicubic", "mean": [0.1] * 3}
    found = released((56, 56), Hints(config={"pretrained_cfg": config}))
    assert (found.fit, found.crop_pct, found.interpolation) == ("squash", 0.9, "bicubic_antialias")
    with pytest.raises(ValueError, match="crop_mode 'border'"):
        released((56, 56), Hints(config={"pretrained_cfg": {"crop_mode": "border"}}))


def test_squashing_is_pillows_resize_of_both_sides_then_a_crop():
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    whole = PIL.Image.fromarray(image)
    squash = EvalTransform(
        size=(32, 24), center=1.0, interpolation="bicubic_antialias", fit="squash"
    )
    expected = whole.resize((24, 32), PIL.Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(squash(image), np.asarray(expected))

    cut = EvalTransform(
        size=(28, 28), center=28 / 32, interpolation="bilinear_antialias", fit="squash"
    )
    expected = whole.resize((32, 32), PIL.Image.Resampling.BILINEAR).crop((2, 2, 30, 30))
    np.testing.assert_array_equal(cut(image), np.asarray(expected))


def test_transformers_processors_leave_the_larger_part_of_an_odd_margin_after_the_crop():
    image = np.random.default_rng(0).integers(0, 256, (32, 51, 3), np.uint8)  # a margin of 19
    crop = EvalTransform(
        size=(32, 32), center=1.0, interpolation="bicubic_antialias", fit="crop_floor"
    )
    np.testing.assert_array_equal(crop(image), image[:, 9:41])


@pytest.mark.parametrize(
    ("changes", "processor"),
    [
        (
            {"fit": "squash", "crop_pct": 1.0, "interpolation": "bicubic_antialias"},
            "ViTImageProcessor",
        ),
        ({"fit": "squash", "crop_pct": 0.5, "interpolation": "nearest"}, "DeiTImageProcessor"),
        (
            {"fit": "crop_floor", "crop_pct": 0.5, "interpolation": "lanczos_antialias"},
            "BitImageProcessor",
        ),
    ],
)
def test_written_folders_and_runs_have_the_same_preprocessing(tmp_path, changes, processor):
    preprocessing = Preprocessing(image_size=(16, 16), mean=(0.1, 0.2, 0.3), **changes)
    model = tiny()
    model.preprocessing = preprocessing
    vit_jax.save(model, tmp_path / "hf", layout="hf")
    file = json.loads((tmp_path / "hf/preprocessor_config.json").read_text())
    assert file["image_processor_type"] == processor
    vit_jax.save(model, tmp_path / "run")
    assert run_config.read_config(tmp_path / "run").data.eval_fit == preprocessing.fit
    for folder in ("hf", "run"):
        assert load.read(tmp_path / folder).preprocessing == preprocessing


def test_evaluation_and_training_use_their_configured_fit():
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    expected = PIL.Image.fromarray(image).resize((16, 16), PIL.Image.Resampling.BICUBIC)
    kernel = "bicubic_antialias"
    model = tiny()
    model.preprocessing = Preprocessing(
        image_size=(16, 16), crop_pct=1.0, interpolation=kernel, fit="squash"
    )
    np.testing.assert_array_equal(evaluation.transform_of(model)(image), np.asarray(expected))
    data = DataConfig(
        crop=Center(),
        interpolation=kernel,
        eval_interpolation=kernel,
        crop_pct=1.0,
        eval_fit="squash",
    )
    np.testing.assert_array_equal(eval_transform(data, size=(16, 16))(image), expected)
    train = train_transform(data, size=(16, 16))
    np.testing.assert_array_equal(train(image, np.zeros(NUMBERS)), expected)


def tiny():
    options = ViTOptions(
        image_size=(16, 16),
        patch_size=(8, 8),
        width=8,
        depth=1,
        mlp_dim=8,
        num_heads=2,
        num_classes=3,
        activation="gelu_erf",
        norm_eps=1e-12,
    )
    shapes = surgery.shapes(options)
    return load.assemble(options, {k: np.ones(s, np.float32) for k, s in shapes.items()})


@pytest.mark.parametrize(
    ("layout", "name", "side", "crop_pct"),
    [
        ("deit", "DeiT-B/16", 224, 0.875),
        ("deit", "DeiT-B/16", 384, 0.875),
        ("deit", "DeiT-III-B/16", 224, 1.0),
        ("deit", "DeiT-III-B/16", 384, 1.0),
        ("mae", "MAE-H/14", 224, 0.875),
        ("mae", "MAE-H/14", 448, 1.0),
        ("beit", "BEiT-B/16", 224, 0.9),
        ("beit", "BEiT-B/16", 384, 1.0),
        ("beit", "BEiT-L/16", 512, 1.0),
    ],
)
def test_models_without_files_beside_them_crop_as_the_zoo_says(layout, name, side, crop_pct):
    options = zoo.options(name, image_size=side)
    found = layouts.LAYOUTS[layout][0].preprocessing(options, Hints())
    assert found == zoo.preprocessing(name, image_size=(side, side))
    assert found.crop_pct == crop_pct


@pytest.mark.parametrize(
    ("layout", "name", "side", "crop_pct"),
    [
        ("timm", "B/16", 224, 0.9),
        ("timm", "B/16", 384, 1.0),
        ("timm", "DeiT-III-B/16", 224, 1.0),
        ("timm", "BEiT-B/16", 224, 0.9),
        ("timm", "BEiT-B/16", 384, 1.0),
        ("hf", "BEiT-B/16", 224, 0.875),
        ("hf", "BEiT-B/16", 384, 1.0),
    ],
)
def test_files_of_libraries_without_their_configs_crop_as_their_released_models(
    layout, name, side, crop_pct
):
    options = zoo.options(name, image_size=side)
    found = layouts.writer(options, layout).preprocessing(options, Hints())
    assert found.crop_pct == crop_pct
