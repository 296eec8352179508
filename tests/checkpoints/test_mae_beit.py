"""MAE's and BEiT's files give the outputs, losses and gradients of the original code."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints.parity import check_gradients
from tests.compare import assert_close
from vit_jax.checkpoints import files, layouts, load, surgery
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm import resnet_v1
from vit_jax.checkpoints.layouts.torch.beit import LAYOUT as beit
from vit_jax.checkpoints.layouts.torch.mae import LAYOUT as mae
from vit_jax.models import decoder, positions
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.objectives.mae import MaskedAutoencoding

# What fine-tuning changes of a pretrained BEiT.
FINE_TUNED: dict[str, Any] = {
    "num_classes": 7,
    "class_token": True,
    "pool": "gap",
    "norm_at": "pooled",
    "relative_bias": "per_block",
    "mask_token": False,
    "mim_classes": 0,
}


@pytest.fixture(scope="module")
def autoencoder(shared):
    folder = shared / "fixtures/mae_pretrain_normpix"
    model: Any = vit_jax.load(folder / "checkpoint.pth", num_heads=3, decoder_heads=2)
    return model, np.load(folder / "io.npz"), folder


def test_a_masked_autoencoder_gives_loss_and_gradients(autoencoder):
    model, io, folder = autoencoder

    def loss(model):
        images, noise = jnp.asarray(io["images"]), jnp.asarray(io["noise"])
        prediction, mask = model.reconstruct(images, noise=noise, mask_ratio=0.75)
        batch = {"image": images, "noise": noise}
        values, weights, _ = MaskedAutoencoding().loss(
            model, batch, key=jax.random.key(0), frozen={}
        )
        value = values.sum() / weights.sum()
        keep = decoder.random_masking(noise, ratio=0.75).keep
        return value, (prediction, mask, model.encode(images, keep=keep))

    (value, outputs), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    assert_close(value, io["expected_loss"])
    assert_close(outputs[0], io["expected_pred"])
    np.testing.assert_array_equal(outputs[1], io["expected_mask"])
    assert_close(outputs[2], io["expected_latent"])
    theirs = files.read_arrays(folder / "grads.safetensors")
    state = files.read_arrays(folder / "checkpoint.pth")
    for fixed in ("pos_embed", "decoder_pos_embed"):
        theirs[fixed] = np.zeros_like(state[fixed])
    check_gradients(gradients, mae, theirs, model.options)


def test_a_new_masked_autoencoder_has_the_positions_of_the_file(autoencoder):
    model, _, folder = autoencoder
    state = files.read_arrays(folder / "checkpoint.pth")
    options = model.options
    for path, name in (("pos_embed", options.width), ("decoder_pos_embed", options.decoder.width)):
        table = positions.fixed_table(options.grid, name, prefix=1)
        np.testing.assert_array_equal(table, state[path])


def test_the_encoder_of_an_autoencoder_can_be_fine_tuned(autoencoder, shared):
    model, io, folder = autoencoder
    path = folder / "checkpoint.pth"
    tuned: Any = vit_jax.load(
        path,
        num_heads=3,
        decoder_heads=2,
        image_size=48,
        decoder=None,
        fixed_position=False,
        num_classes=5,
        class_token=True,
        pool="gap",
        norm_at="pooled",
    )
    assert tuned.options.decoder is None
    assert tuned.encoder.position.shape == (1, 37, 48)
    images = np.zeros((1, 48, 48, 3), np.float32)
    assert tuned(images).shape == (1, 5)


def test_an_unknown_decoder_needs_its_heads(shared):
    path = shared / "fixtures/mae_pretrain_normpix/checkpoint.pth"
    with pytest.raises(ValueError, match="no known decoder has width 32: give decoder_heads"):
        vit_jax.load(path, num_heads=3)


@pytest.mark.parametrize("name", ["num_heads", "decoder_heads"])
def test_heads_of_a_part_that_the_model_lacks_are_refused(shared, tmp_path, name):
    source = tmp_path / "resnet.safetensors"
    options = ResNetOptions(image_size=(32, 32), depths=(1, 1), width=4, num_classes=3)
    shapes = surgery.shapes(options).items()
    params = {path: np.zeros(shape, np.float32) for path, shape in shapes}
    safetensors_numpy.save_file(layouts.table.write(resnet_v1.entries(options), params), source)
    with pytest.raises(ValueError, match=f"the model has no {name}, not 2: leave it out"):
        vit_jax.load(source, **{name: 2})
    vit = shared / "fixtures/mae_vit_gap/checkpoint.pth"
    with pytest.raises(ValueError, match="the model has no decoder_heads, not 2: leave it out"):
        vit_jax.load(vit, num_heads=3, decoder_heads=2)


def test_beit_predicts_the_visual_tokens(shared):
    folder = shared / "fixtures/beit_pretrain_mim"
    io = np.load(folder / "io.npz")
    model: Any = vit_jax.load(folder / "checkpoint.pth")
    mask = io["mask"]

    def loss(model):
        logits = model.patch_logits(io["images"], mask=mask)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits[mask], io["masked_labels"])
        return entropy.mean(), logits

    (value, logits), gradients = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    assert_close(value, io["expected_loss"])
    assert_close(logits, io["expected_all_logits"])
    theirs = files.read_arrays(folder / "grads.safetensors")
    check_gradients(gradients, beit, theirs, model.options)


@pytest.mark.parametrize("size", [24, 32, 48, 80])
def test_fine_tuning_starts_as_beits_does(shared, size):
    """The shared table becomes one table per block, on another grid; head and norm are new."""
    folder = shared / "fixtures/beit_finetune_interp"
    io = np.load(folder / "io.npz")
    path = folder / "checkpoint_pretrain_shared.pth"
    model: Any = vit_jax.load(path, image_size=size, **FINE_TUNED)
    np.testing.assert_array_equal(model.head.kernel[...], 0)
    np.testing.assert_array_equal(model.encoder.norm.scale[...], 1)
    for table in model.encoder.blocks.attention.relative_bias[...]:
        assert_close(table, io[f"expected_relpos_table_{size}"], atol=1e-6)
    model.head.kernel[...], model.head.bias[...] = io["head_weight"].T, io["head_bias"]
    model.encoder.norm.scale[...], model.encoder.norm.bias[...] = (
        io["fc_norm_weight"],
        io["fc_norm_bias"],
    )
    assert_close(model(io[f"images_{size}"]), io[f"expected_logits_{size}"])


@pytest.mark.parametrize(
    ("name", "file", "layout", "heads"),
    [
        ("mae_pretrain_normpix", "checkpoint.pth", "mae", {"num_heads": 3, "decoder_heads": 2}),
        ("mae_vit_gap", "checkpoint.pth", "mae", {"num_heads": 3}),
        ("beit_pretrain_mim", "checkpoint.pth", "beit", {}),
    ],
)
def test_files_are_written_as_they_were_read(shared, tmp_path, name, file, layout, heads):
    source = shared / "fixtures" / name / file
    contents = files.contents(source)
    arrays, key = contents.arrays, contents.key
    assert layouts.find(arrays, "", path="", key=key) is layouts.LAYOUTS[layout][0]
    model: Any = vit_jax.load(source, **heads)
    vit_jax.save(model, tmp_path / "again.pth", layout=layout)
    contents = files.contents(tmp_path / "again.pth")
    again, key = contents.arrays, contents.key
    assert key == "model"
    assert again.keys() == arrays.keys()
    for array in arrays:
        assert again[array].dtype == arrays[array].dtype
        np.testing.assert_array_equal(again[array], arrays[array])


@pytest.mark.parametrize("kind", ["per_block", "shared", "none"])
def test_every_relative_bias_of_a_beit_is_written_with_its_index(tmp_path, kind):
    """The original code expects these arrays when it loads a file."""
    options = ViTOptions(image_size=(8, 12), width=24, depth=3, mlp_dim=32, num_heads=3,
                         activation="gelu_erf", patch_size=(4, 4), class_token=True, key_bias=False,
                         relative_bias=kind)  # fmt: skip
    params = {k: np.zeros(s, np.float32) for k, s in surgery.shapes(options).items()}
    vit_jax.save(load.assemble(options, params), tmp_path / "m.pth", layout="beit")
    arrays = files.contents(tmp_path / "m.pth").arrays
    suffix = "relative_position_bias_table"
    tables = [name.removesuffix(suffix) for name in arrays if name.endswith(suffix)]
    assert len(tables) == {"per_block": 3, "shared": 1, "none": 0}[kind]
    indices = [name for name in arrays if name.endswith("relative_position_index")]
    assert sorted(indices) == sorted(f"{name}relative_position_index" for name in tables)
    for name in indices:
        assert arrays[name].dtype == np.int64
        np.testing.assert_array_equal(arrays[name], positions.relative_index((2, 3)))


def test_encoders_without_head_are_read_as_mae(tmp_path):
    options = ViTOptions(image_size=(16, 16), width=24, depth=1, mlp_dim=32, num_heads=3,
                         num_classes=0, activation="gelu_erf", patch_size=(4, 4))  # fmt: skip
    shapes = surgery.shapes(options)
    params = {k: np.full(s, 0.1, np.float32) for k, s in shapes.items()}
    vit_jax.save(load.assemble(options, params), tmp_path / "encoder.pth", layout="mae")
    (tmp_path / "config.json").unlink()
    contents = files.contents(tmp_path / "encoder.pth")
    arrays, key = contents.arrays, contents.key
    assert layouts.find(arrays, "", path="", key=key) is mae
    read = load.read(tmp_path / "encoder.pth", num_heads=3)
    assert read.options.num_classes == 0
    assert read.resize.position == "bicubic"
    assert read.preprocessing.mean == (0.485, 0.456, 0.406)


def test_layouts_refuse_models_that_they_cannot_hold():
    options = ViTOptions(layer_scale=0.1)
    with pytest.raises(ValueError, match="mae layout cannot hold layer_scale"):
        mae.entries(options)
    with pytest.raises(ValueError, match="beit layout cannot hold key_bias"):
        beit.entries(options)
    with pytest.raises(ValueError, match="mae layout cannot hold pool='map' with norm_at='tokens'"):
        mae.entries(ViTOptions(pool="map", class_token=True))
    with pytest.raises(ValueError, match="mae layout needs a class token"):
        mae.entries(ViTOptions(class_position=False))


def test_beits_grid_is_read_from_its_table():
    options = dataclasses.replace(
        ViTOptions(image_size=(16, 24), patch_size=(4, 4), width=24, depth=1, mlp_dim=32,
                   num_heads=3, activation="gelu_erf", key_bias=False, class_token=True,
                   position="none", relative_bias="per_block", num_classes=0)
    )  # fmt: skip
    shapes = surgery.shapes(options)
    params = {k: np.zeros(s, np.float32) for k, s in shapes.items()}
    arrays = layouts.table.write(beit.entries(options), params)
    with pytest.raises(ValueError, match="leave the grid of patches open"):
        beit.infer(arrays, Hints())
    assert beit.infer(arrays, Hints(grid=(4, 6))).image_size == (16, 24)
