"""Models with another number of channels than three: weights adapted as in timm, and files."""

import dataclasses
import warnings

import jax
import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models import fitting, zoo
from vit_jax.models.bit import RESNET_V2
from vit_jax.models.preprocessing import Preprocessing


def timms(kernel: np.ndarray, number: int) -> np.ndarray:
    """Timm's `adapt_input_conv` of (h, w, C, D), written from its definition."""
    weight = kernel.transpose(3, 2, 0, 1)  # OIHW
    given = weight.shape[1]
    if number == 1:
        weight = weight.sum(axis=1, keepdims=True)
    else:
        repeats = -(-number // given)
        weight = np.tile(weight, (1, repeats, 1, 1))[:, :number] * (given / number)
    return weight.transpose(2, 3, 1, 0)


@pytest.mark.parametrize(("given", "wanted"), [(3, 1), (3, 2), (3, 4), (3, 7), (1, 3), (4, 1)])
def test_kernels_are_adapted_as_timm_does_it(given: int, wanted: int) -> None:
    kernel = np.random.default_rng(0).normal(size=(2, 3, given, 5)).astype(np.float32)
    adapted = fitting.with_channels(kernel, wanted)
    assert adapted.dtype == np.float32
    assert_close(adapted, timms(kernel, wanted), rtol=1e-6, atol=1e-6)


SWIN = {"width": 12, "depths": (1, 1), "num_heads": (1, 2), "windows": ((4, 4),)}
STEM = dataclasses.replace(RESNET_V2, num_layers=(1,), root_width=8, groups=4)
FAMILIES = [
    ("Ti/8", {"width": 32, "depth": 1, "mlp_dim": 32, "num_heads": 2}, "encoder/embedding/kernel"),
    (
        "R+Ti/16",
        {"width": 32, "depth": 1, "patch_size": (1, 1), "num_heads": 2},
        "encoder/stem/root/kernel",
    ),
    ("Swin-T", SWIN, "embedding/kernel"),
    ("R50x1", {"stem": STEM}, "stem/root/kernel"),
]


@pytest.mark.parametrize(("name", "changes", "path"), FAMILIES)
def test_every_family_is_adapted_only_if_the_user_asks(name, changes, path) -> None:
    options = zoo.options(name, image_size=(32, 32), num_classes=3, **changes)
    given = load.Checkpoint(
        options=options,
        params=tiny.params(options),
        preprocessing=Preprocessing(image_size=(32, 32)),
    )
    with pytest.raises(ValueError, match="takes 3 channels, the model 1: .*--adapt-channels"):
        load.adapted(given, channels=1)
    for number, message in (
        (1, "summed to 1, as in timm"),
        (4, "repeated and scaled for 4, as in timm"),
    ):
        changed, report = load.adapted(given, channels=number, adapt_channels=True)
        expected = timms(given.params[path], number)
        assert_close(changed.params[path], expected, rtol=1e-5, atol=1e-6)
        assert changed.options.channels == len(changed.preprocessing.std) == number
        assert message in changed.notes[-1] and message in str(report)
        assert f"{path} {given.params[path].shape} -> {expected.shape}" in report.resized
        others = set(given.params) - {path}
        assert all(np.array_equal(changed.params[o], given.params[o]) for o in others)


def test_one_summed_channel_gives_the_output_of_three_equal_channels() -> None:
    model = tiny.model()
    given = load.Checkpoint(
        options=model.options,
        params=tiny.params(model.options),
        preprocessing=Preprocessing(image_size=(16, 24)),
    )
    changed, _ = load.adapted(given, channels=1, adapt_channels=True)
    grey = load.assemble(changed.options, changed.params)
    values = tiny.images()[..., :1]
    forward = jax.jit(lambda model, images: model(images))
    same = forward(model, np.repeat(values, 3, axis=-1))
    assert_close(forward(grey, values), same, rtol=1e-4, atol=1e-5)


def test_mean_and_std_follow_the_channels() -> None:
    three = Preprocessing(image_size=(8, 8), mean=(0.1, 0.2, 0.6), std=(0.1, 0.2, 0.3))
    assert three.for_channels(1).mean == pytest.approx((0.3,))
    assert three.for_channels(4).mean == (0.1, 0.2, 0.6, 0.1)
    assert three.for_channels(3) == three
    assert Preprocessing(image_size=(8, 8)).for_channels(2).std == (0.5, 0.5)
    with pytest.raises(ValueError, match="has 2 values: give one for each of 3 channels"):
        Preprocessing(image_size=(8, 8), mean=(0.1, 0.2), std=(1.0, 1.0)).for_channels(3)


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("layout", ["timm", "hf", "vit_jax"])
def test_files_with_other_channels_read_back_equal_and_run(tmp_path, layout, number) -> None:
    model = tiny.model(channels=number, image_size=(16, 16))
    path = tmp_path / {"timm": "m.safetensors", "hf": "m", "vit_jax": "m.npz"}[layout]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layout's numerics
        vit_jax.save(model, path, layout=layout)
    again = vit_jax.load(path, num_heads=4)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    mode = {1: "L", 4: "RGBA"}[number]
    PIL.Image.fromarray(pixels if number == 4 else pixels[..., 0], mode).save(tmp_path / "a.png")
    images = vit_jax.read_images([tmp_path / "a.png"], again)
    assert images.shape == (1, 16, 16, number)
    assert again.preprocessing == dataclasses.replace(
        again.preprocessing, mean=(0.5,) * number, std=(0.5,) * number
    )
