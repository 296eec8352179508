"""The images that a model accepts: normalised, of its size and channels, or an empty batch."""

import jax
import numpy as np
import pytest

import vit_jax
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models import zoo

SWIN = {"width": 12, "depths": (2, 1), "num_heads": (1, 2), "windows": ((4, 4),)}


@pytest.fixture(scope="module")
def models():
    swin = zoo.options("Swin-T", image_size=32, num_classes=5, **SWIN)
    return [tiny.model(depth=1), load.assemble(swin, tiny.params(swin))]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, bool])
def test_integer_images_are_refused_as_not_normalised(models, dtype) -> None:
    for model in models:
        images = np.zeros((1, *model.options.image_size, 3), dtype)
        with pytest.raises(ValueError, match=r"images are (u?int\d+|bool), .*\.read_images"):
            model(images)
        with pytest.raises(ValueError, match="normalised"):
            jax.eval_shape(lambda x, model=model: model(x), images)


def test_no_images_give_no_logits(models) -> None:
    for model in models:
        images = np.zeros((0, *model.options.image_size, 3), np.float32)
        assert jax.eval_shape(model, images).shape == (0, 5)
    assert models[0](np.zeros((0, 16, 24, 3), np.float32)).shape == (0, 5)


@pytest.mark.parametrize(
    "shape",
    [(16, 24, 3), (1, 16, 24), (1, 24, 16, 3), (1, 16, 24, 1), (1, 3, 16, 24), (1, 0, 24, 3)],
)
def test_a_message_names_the_wrong_shape(models, shape) -> None:
    with pytest.raises(ValueError, match=r"the model takes \(batch, 16, 24, 3\)"):
        models[0](np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=r"of type list: give an array"):
        models[0](np.zeros((1, 16, 24, 3)).tolist())


def test_one_number_as_image_size_is_a_square() -> None:
    options = zoo.options("Ti/8", image_size=16, patch_size=4)
    assert (options.image_size, options.patch_size) == ((16, 16), (4, 4))
    sizes = {"width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 1}
    model = vit_jax.create("Ti/8", image_size=16, num_classes=2, **sizes)
    assert model.preprocessing.image_size == model.options.image_size == (16, 16)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Ti/16", {"width": 3 * 2**40}, "width is .* from 0 to 65,536"),
        ("Ti/16", {"depth": 10**9}, "depth is 1000000000"),
        (
            "Ti/16",
            {"num_classes": 10**9},
            "num_classes is 1000000000: it must be from 0 to 1,048,576",
        ),
        ("Ti/16", {"image_size": (10**6, 10**6)}, "image_size is"),
        ("Ti/16", {"image_size": (2**16, 2**10), "patch_size": 1}, "67,108,86. patches"),
        ("R50x1", {"num_classes": 10**9}, "num_classes is 1000000000"),
        ("R50x1", {"image_size": (0, 32)}, "must be positive"),
        ("Swin-T", {"num_classes": -1}, "num_classes is -1"),
        ("Swin-T", {"num_heads": (0, 0, 0, 0)}, "must be positive"),
        ("Ti/16", {"width": 3 * 2**14, "depth": 4096}, "more than any machine holds"),
    ],
)
def test_sizes_beyond_every_machine_are_refused(name, changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        zoo.options(name, **({"image_size": 224} | changes))
