"""A model for another image size, in memory, is the model that `load` makes of the file."""

import numpy as np
import pytest
from flax import nnx, traverse_util

import vit_jax
from tests.compare import assert_same_bits
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models import positions, zoo
from vit_jax.models.interpolation import Methods

SWIN = {"width": 12, "depths": (2, 1), "num_heads": (1, 2), "windows": ((4, 4),)}


def arrays(model: zoo.Model) -> dict[str, np.ndarray]:
    state = traverse_util.flatten_dict(nnx.to_pure_dict(nnx.state(model)), sep="/")
    return {path: np.asarray(array) for path, array in state.items()}


@pytest.mark.parametrize("relative", ["none", "per_block"])
def test_a_resized_model_is_the_one_that_load_makes(tmp_path, relative) -> None:
    """With the method of the family that the model was loaded from, which a run keeps."""
    position = "none" if relative == "per_block" else "learned_1d"
    model = tiny.model(relative_bias=relative, position=position)
    model.resize_methods = Methods(position="bicubic", relative="geometric_linear")
    vit_jax.save(model, tmp_path / "run")
    loaded = vit_jax.load(tmp_path / "run")
    assert loaded.resize_methods == model.resize_methods
    wanted = vit_jax.load(tmp_path / "run", image_size=(32, 48))
    for one in (model, loaded):
        found = one.resized(32, 48)
        assert found.options == wanted.options
        assert_same_bits(arrays(found), arrays(wanted))
    assert loaded.resized(32, 48).preprocessing == wanted.preprocessing
    assert loaded.options.image_size == (16, 24), "the model itself is as it was"
    images = tiny.images(size=(32, 48))
    assert np.array_equal(loaded.resized(32, 48)(images), wanted(images))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("B/16", "vitjax_cls/ckpt.npz"),
        ("S/16", "bv_vit_gap/ckpt.npz"),
        ("R50+B/16", "vitjax_hybrid_r/ckpt.npz"),
        ("DeiT-distilled-S/16", "deit_distilled/checkpoint.pth"),
        ("MAE-B/16", "mae_vit_gap/checkpoint.pth"),
        ("MAE-pretrain-B/16", "mae_pretrain_normpix/checkpoint.pth"),
        ("BEiT-pretrain-B/16", "beit_pretrain_mim/checkpoint.pth"),
        ("Swin-T", "timm_swin/model.safetensors"),
        ("R50x1", "bv_bit_paper/ckpt.npz"),
        ("RegNetY-160", "timm_regnety/model.safetensors"),
    ],
)
def test_a_created_model_is_resized_as_a_released_file_of_its_family(shared, name, file) -> None:
    attention = not name.startswith(("R50x1", "RegNetY"))
    heads = {"num_heads": 3 * attention, "decoder_heads": 2 * name.startswith("MAE-pretrain")}
    released = load.read(str(shared / "fixtures" / file), **heads)
    assert zoo.resize_methods(name) == released.resize


def test_a_created_model_has_the_methods_of_its_family() -> None:
    """Also under the name of another library: the resize is that of the family."""
    for name in ("DeiT-Ti/16", "deit_tiny_patch16_224"):
        model = vit_jax.create(name, depth=1, num_classes=0)
        assert model.resize_methods == Methods(position="bicubic", patch="bicubic_antialias")
        table = np.asarray(model.encoder.position[...])
        resized = positions.resize(table, source=(14, 14), target=(24, 24), method="bicubic")
        np.testing.assert_array_equal(model.resized(384).encoder.position[...], resized)
    assert vit_jax.create("Ti/16", depth=1).resize_methods == Methods()
    swin = vit_jax.create("Swin-T", image_size=32, num_classes=5, **SWIN)
    assert swin.resize_methods.relative == "geometric_linear"


def test_one_number_is_a_square_and_a_size_that_does_not_fit_is_refused() -> None:
    model = tiny.model()
    assert model.resized(32).options.image_size == (32, 32)
    with pytest.raises(ValueError, match="image width 30 is not a multiple of the patch"):
        model.resized(32, 30)
    swin = vit_jax.create("Swin-T", image_size=32, num_classes=5, **SWIN)
    assert swin.resized(64).options.image_size == (64, 64)
