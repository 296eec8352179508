"""Files to a model's input, and so to the logits that the originals have of real photographs."""

import dataclasses
import tarfile

import jax
import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.commands import classifying
from vit_jax.data import image_list, preprocess
from vit_jax.data.crops import Center
from vit_jax.data.options import DataConfig
from vit_jax.training import evaluation


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


def turned(path, orientation: int, value: int = 0) -> None:
    """A photograph whose left half is `value` and right half white, to be turned by its tag."""
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[:, :8] = value
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(pixels).save(path, quality=100, exif=exif)


def test_photographs_stand_upright_for_a_model_and_in_a_run_where_asked_for(tmp_path) -> None:
    sizes = {"width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 1, "num_classes": 2}
    model = vit_jax.create("Ti/8", image_size=16, channels=1, **sizes)
    model.preprocessing = dataclasses.replace(model.preprocessing, crop_pct=1.0)
    dark = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "low", 8: "low"}
    halves = {"left": np.s_[:, :7], "right": np.s_[:, 9:], "top": np.s_[:7], "low": np.s_[9:]}
    for orientation, where in dark.items():
        turned(tmp_path / "a.jpg", orientation)
        image = vit_jax.read_images([tmp_path / "a.jpg"], model)[0, ..., 0]
        assert image[halves[where]].max() < -0.9, orientation
        data = (tmp_path / "a.jpg").read_bytes()
        for asked in (True, False):
            config = DataConfig(orientation=asked, crop_pct=1.0, crop=Center())
            for transform in (
                preprocess.eval_transform(config, size=(16, 16)),
                preprocess.train_transform(config, size=(16, 16)),
            ):
                pixels = transform.decode(data)
                assert pixels[halves[where if asked else "left"]].max() < 20


def test_every_reader_gives_what_the_model_takes(tmp_path) -> None:
    """Grey for one channel, and files of as many channels for others, or a line that says so."""
    rgba = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    PIL.Image.fromarray(rgba, "RGBA").save(tmp_path / "four.png")
    PIL.Image.fromarray(rgba[..., :3]).save(tmp_path / "three.png")
    sizes = {"width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 1, "num_classes": 2}
    one, four = (vit_jax.create("Ti/8", image_size=16, channels=c, **sizes) for c in (1, 4))
    for model in (one, four):
        model.preprocessing = dataclasses.replace(model.preprocessing, crop_pct=1.0)
    grey = vit_jax.read_images([tmp_path / "three.png"], one)
    expected = np.asarray(PIL.Image.open(tmp_path / "three.png").convert("L")) / 127.5 - 1
    assert_close(grey[0, ..., 0], expected, atol=1e-6)
    pixels = vit_jax.read_images([tmp_path / "four.png"], four)
    assert_close(pixels[0], rgba / 127.5 - 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"three\.png: .* 3 channels \(RGB\), the model takes 4"):
        vit_jax.read_images([tmp_path / "three.png"], four)
    (tmp_path / "labels").write_text("three.png 0\nfour.png 1\n")
    labels = image_list.read_labels(tmp_path / "labels")
    source = image_list.ImageListSource(tmp_path, labels, class_names=("a", "b"))
    assert evaluation.evaluate_model(one, source)["count"] == 2
    found = dict(classifying.predict([one], [str(tmp_path / "four.png")], top=2, names=["ab"]))
    assert len(found[str(tmp_path / "four.png")][0]) == 2
