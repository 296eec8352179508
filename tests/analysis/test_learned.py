"""What is read off a model before it sees an image: filters, positions, relative biases."""

import jax
import numpy as np
import pytest

import vit_jax
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.analysis import curves, figures, learned, learned_figures
from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints import load
from vit_jax.models import swin
from vit_jax.models.dvae import DVAEOptions
from vit_jax.models.layers import grid_bias
from vit_jax.models.positions import relative_index
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions


@pytest.fixture(scope="module")
def model():
    return vit_jax.create(
        "Ti/8", image_size=(16, 24), width=16, depth=1, mlp_dim=16, num_heads=2, num_classes=3
    )


def test_filters_are_principal_components_scaled_to_pixels(model):
    images = learned.filters(model, count=5)
    assert images.shape == (5, 8, 8, 3)
    assert_close(images.min(axis=(1, 2, 3)), 0, atol=1e-12)
    assert_close(images.max(axis=(1, 2, 3)), 1, atol=1e-12)


def test_filters_are_eigenvectors_of_the_covariance_with_a_fixed_sign(model):
    kernel = np.asarray(model.patch_kernel, np.float64).reshape(-1, 16)  # pixels x filters
    values, vectors = np.linalg.eigh(np.cov(kernel))
    first = vectors[:, np.argmax(values)]
    first = first * np.sign(first[np.abs(first).argmax()])
    expected = (first - first.min()) / (first.max() - first.min())
    assert_close(learned.filters(model)[0].ravel(), expected, atol=1e-6)
    assert len(learned.filters(model, count=28)) == 15, "16 filters have 15 directions"


def test_filters_of_grey_images_are_grey(model):
    """Grey images see only the sum over the channels, each divided by its deviation."""
    grey = tiny.model(channels=1, patch_size=(8, 8))
    colour = tiny.model()
    std = (0.2, 0.3, 0.5)
    colour.preprocessing = Preprocessing(image_size=(16, 24), std=std)
    kernel = np.asarray(grey.patch_kernel)
    shares = np.array([0.5, 0.2, 0.3], np.float32)[None, None, :, None]
    colours = kernel * shares
    other = np.random.default_rng(0).normal(size=kernel[:, :, 0].shape).astype(np.float32)
    colours[:, :, 0] += other  # which the next channel takes back
    colours[:, :, 1] -= other
    colour.encoder.embedding.kernel[...] = colours * np.float32(std)[:, None]
    images = learned.filters(colour, grey=True, count=3)
    assert images.shape == (3, 8, 8, 1)
    assert_close(images, learned.filters(grey, count=3), atol=1e-5)


def test_similarity_of_positions_leaves_out_the_class_token(model):
    similarity = learned.position_similarity(model)
    assert similarity.shape == (2, 3, 2, 3)
    patches = np.asarray(model.encoder.position[...])[0, 1:]
    expected = patches[1] @ patches[5] / np.linalg.norm(patches[1]) / np.linalg.norm(patches[5])
    assert_close(similarity[0, 1, 1, 2], expected, rtol=1e-5)
    assert_close(np.diag(similarity.reshape(6, 6)), 1, rtol=1e-6)


@pytest.mark.parametrize("position", ["learned_2d", "sincos2d"])
def test_positions_of_other_kinds_are_similar_along_rows_and_columns(position):
    model = tiny.model(position=position)
    table = np.asarray(model.position_table(), np.float64)[0].reshape(2, 3, -1)
    expected = np.einsum("ijd,kld->ijkl", table, table)
    norms = np.linalg.norm(table, axis=-1)
    expected /= norms[:, :, None, None] * norms
    assert_close(learned.position_similarity(model), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["per_block", "shared"])
def test_relative_biases_are_those_of_the_attention(kind):
    model = tiny.model(position="none", relative_bias=kind, class_token=True, pool="gap")
    (biases,) = learned.relative_biases(model).values()
    assert biases.shape == (3 if kind == "per_block" else 1, 4, 3, 5)
    owner = model.encoder if kind == "shared" else model.encoder.blocks.attention
    table = owner.relative_bias[...]
    logits = np.asarray(grid_bias(table if kind == "shared" else table[0], (2, 3)))[0, :, 1:, 1:]
    by_place = logits.reshape(4, 2, 3, 2, 3)
    for query, key in (((0, 0), (1, 2)), ((1, 2), (0, 0)), ((0, 1), (0, 0))):
        down, right = (k - q for q, k in zip(query, key, strict=True))
        assert_close(biases[0, :, 1 + down, 2 + right], by_place[(slice(None), *query, *key)])


def test_a_swin_has_filters_positions_and_biases_of_each_stage():
    options = swin.SwinOptions(
        image_size=(16, 32),
        width=8,
        depths=(1, 2),
        num_heads=(1, 2),
        windows=((2, 4),),
        position="learned_1d",
        num_classes=0,
    )
    model = load.assemble(options, tiny.params(options))
    assert learned.filters(model).shape[1:] == (4, 4, 3)
    assert learned.position_similarity(model).shape == (4, 8, 4, 8)
    biases = learned.relative_biases(model)
    assert {part: b.shape for part, b in biases.items()} == {
        "stage 1": (1, 1, 3, 7),
        "stage 2": (2, 2, 3, 7),
    }
    table = np.asarray(model.stage2.blocks.relative_bias[...])[1]
    index = relative_index((2, 4))[1:, 1:]  # query 0 is at the top left, key 7 at the bottom right
    assert_close(biases["stage 2"][1, :, 2, 6], table[index[0, 7]])
    assert learned_figures.relative_biases(biases).axes[1].get_title("left") == "stage 2"


def test_filters_of_a_hybrid_are_those_of_its_root_as_it_multiplies_with_them():
    stem = StemOptions(num_layers=(1,), root_width=8, groups=8)
    hybrid = tiny.model(patch_size=(2, 2), stem=stem)
    kernel = np.asarray(hybrid.patch_kernel, np.float64)
    assert kernel.shape == (7, 7, 3, 8)
    assert_close(kernel.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    assert_close(kernel.std(axis=(0, 1, 2)), 1, rtol=1e-3)
    assert learned.filters(hybrid).shape == (7, 7, 7, 3), "8 filters have 7 directions"


@pytest.mark.parametrize(("name", "side"), [("R50x1", 7), ("ResNet-18", 7), ("RegNetY-160", 3)])
def test_other_families_have_the_filters_of_their_stems(name, side):
    def kernel():
        return vit_jax.create(name, image_size=64, num_classes=3).patch_kernel

    assert jax.eval_shape(kernel).shape[:3] == (side, side, 3)


def test_what_a_model_lacks_is_named():
    stem = StemOptions(num_layers=(1,), root_width=8, groups=8)
    hybrid = tiny.model(patch_size=(2, 2), stem=stem)
    small = {"image_size": (8, 8), "hidden": 4, "groups": 1, "blocks": 1, "vocabulary": 4}
    options = DVAEOptions(code_width=4, **small)
    dvae = load.assemble(options, tiny.params(options))
    with pytest.raises(NoPicture, match="first filters of this model are not known"):
        learned.filters(dvae)
    with pytest.raises(NoPicture, match="position 'none'"):
        learned.position_similarity(tiny.model(position="none"))
    with pytest.raises(NoPicture, match="no tables of relative position biases"):
        learned.relative_biases(hybrid)


def test_pictures_are_drawn(model, tmp_path):
    lines = [(1, {"loss": 2.0}), (2, {"loss": 1.0}), (2, {"eval_top1": 0.5})]
    images = np.asarray(jax.random.randint(jax.random.key(0), (9, 16, 24, 3), 0, 256), np.uint8)
    drawn = {
        "curves": curves.curves({"": [lines]}),
        "filters": learned_figures.filters(learned.filters(model)),
        "positions": learned_figures.position_similarity(learned.position_similarity(model)),
        "predictions": figures.predictions(images, [("a", 0.5)] * 9, ["a", "b", ""] * 3),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 2000
    titles = [axes.get_title() for axes in drawn["predictions"].axes]
    assert titles[:3] == ["a 50%", "a 50%\n(is b)", "a 50%"]
    maps = drawn["positions"].axes[0].images[0].get_array()
    assert maps.shape == (2 * 2 + 1, 3 * 3 + 2), "maps of 2 x 3 with a gap of 1"
