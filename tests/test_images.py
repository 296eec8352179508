"""Files to a model's input, and so to the logits that the originals have of real photographs."""

import tarfile

import jax
import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests.models import tiny


def test_images_are_read_as_the_model_expects_them(tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    model = vit_jax.create("DeiT-Ti/8", image_size=(16, 24), depth=1, num_classes=2)
    images = vit_jax.read_images([tmp_path / "a.png"] * 2, model)
    assert images.shape == (2, 16, 24, 3) and images.dtype == np.float32
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    cropped = pixels.mean() / 255  # the crop of 87.5% keeps about the mean
    assert images.mean() == pytest.approx((cropped - np.mean(mean)) / np.mean(std), abs=0.1)


def test_a_file_that_is_no_image_is_named(tmp_path) -> None:
    (tmp_path / "a.png").write_text("no image")
    model = vit_jax.create("Ti/8", image_size=(16, 16), depth=1)
    with pytest.raises(ValueError, match=r"a\.png: cannot decode"):
        vit_jax.read_images([tmp_path / "a.png"], model)
    with pytest.raises(ValueError, match=r"b\.png: No such file"):
        vit_jax.read_images([tmp_path / "b.png"], model)


def test_a_model_without_preprocessing_says_so() -> None:
    with pytest.raises(ValueError, match=r"set model\.preprocessing"):
        vit_jax.read_images([], tiny.model())


def test_logits_of_real_photographs_are_those_of_the_original(shared, tmp_path) -> None:
    """Through our own decoding, resizing and cropping: all 200, as PyTorch and timm gave them."""
    known = np.load(shared / "data/vit_Ti16_in1k_logits_200.npz")
    with tarfile.open(shared / "data/imagenet_sample_200.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    model = vit_jax.load(shared / "data/vit_Ti16_in1k_timm.safetensors")
    forward = jax.jit(lambda model, images: model(images))
    files = [tmp_path / str(name) for name in known["files"]]
    ours = np.concatenate(
        [forward(model, vit_jax.read_images(files[i : i + 50], model)) for i in range(0, 200, 50)]
    )
    theirs = known["logits"]
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    assert (ours.argmax(1) == known["labels"]).mean() == pytest.approx(0.82)
    top5 = np.argsort(-ours, axis=1)[:, :5] == known["labels"][:, None]
    assert top5.any(1).mean() == pytest.approx(0.97)
