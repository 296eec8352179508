"""What a model attends to: the arrays of the pictures equal a plain computation in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from tests.compare import assert_close
from tests.models import tiny
from vit_jax.analysis import attention, attention_figures, components
from vit_jax.models.resnet import StemOptions

SIZE = (16, 24)


@pytest.fixture(scope="module")
def weights():
    """Random attention (L, B, H, T, T) of two tokens before 2 x 3 patches."""
    logits = np.random.default_rng(0).normal(size=(3, 2, 4, 8, 8))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_distances_are_those_of_patch_centres_in_pixels():
    between = attention.distances((2, 3), (16, 60))
    assert between.shape == (6, 6)
    assert between[0, 1] == 20 and between[0, 3] == 8
    assert between[0, 5] == pytest.approx(np.hypot(8, 40))
    np.testing.assert_array_equal(between, between.T)


def test_a_head_that_attends_to_itself_has_distance_zero_and_to_its_neighbour_its_width():
    own = jnp.eye(6)[None, None, None]
    shifted = jnp.roll(jnp.eye(6), 1, axis=1)[None, None, None]
    row = jnp.asarray(attention.distances((1, 6), (8, 48)), jnp.float32)
    found = attention.sum_of_distances(jnp.concatenate([own, shifted], axis=2), row)
    assert_close(found, [[0, (5 * 8 + 40) / 6]], atol=1e-5)


def test_a_head_that_attends_to_the_class_token_only_has_distance_zero():
    weights = jnp.zeros((1, 1, 1, 3, 3)).at[..., 0].set(1.0)
    between = jnp.asarray(attention.distances((1, 2), (8, 16)), jnp.float32)
    assert_close(attention.sum_of_distances(weights, between), [[0.0]], atol=1e-9)


def test_attention_distance_is_the_mean_over_patches_of_their_own_shares(weights):
    between = attention.distances((2, 3), SIZE)
    expected = np.zeros((3, 4))
    for image in range(2):
        for query in range(6):
            of_patches = weights[:, image, :, 2 + query, 2:]
            shares = of_patches / of_patches.sum(-1, keepdims=True)
            expected += (shares * between[query]).sum(-1) / 6
    found = attention.sum_of_distances(
        jnp.asarray(weights, jnp.float32), jnp.asarray(between, jnp.float32)
    )
    assert_close(found, expected, rtol=1e-5)


@pytest.mark.parametrize("class_token", [True, False])
def test_rollout_is_the_product_of_the_layers(weights, class_token):
    expected = []
    for image in range(2):
        product = np.eye(8)
        for layer in range(3):
            mixed = weights[layer, image].mean(axis=0) + np.eye(8)
            product = (mixed / mixed.sum(axis=-1, keepdims=True)) @ product
        row = product[0, 2:] if class_token else product[2:, 2:].mean(axis=0)
        expected.append(row / row.sum())
    found = attention.rollout(jnp.asarray(weights, jnp.float32), prefix=2, class_token=class_token)
    assert_close(found, expected, rtol=1e-5)


def test_maps_are_interpolated_over_the_pixels_that_patches_cover():
    maps = np.arange(6.0)[None]
    image = attention.over_image(maps, grid=(2, 3), covered=SIZE, size=(18, 24))[0]
    assert image.shape == (18, 24)
    assert np.isnan(image[16:]).all() and not np.isnan(image[:16]).any()
    assert image[0, 0] == 0 and image[15, 23] == 5, "corners are outside all centres: constant"
    assert image[0, 8] == pytest.approx(0.5625)  # 8.5 pixels: between centres at 4 and at 12


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pool": "gap"},
        {"registers": 2, "position_at": "every_block", "register_position": True},
        {"relative_bias": "per_block", "position": "none"},
        {"patch_size": (2, 2), "stem": StemOptions(num_layers=(1,), root_width=8, groups=8)},
        {"image_size": (18, 25), "drop_edges": True},
    ],
    ids=["class token", "pooled", "registers", "biased", "hybrid", "edges"],
)
def test_a_model_gives_the_attention_that_its_output_used(options):
    """Weights of the last layer and its values give the tokens of the last block."""
    model = tiny.model(**options)
    images = tiny.images(size=options.get("image_size", SIZE))
    weights = np.asarray(model.attention_weights(images))
    tokens = model.options.tokens
    assert weights.shape == (3, 2, 4, tokens, tokens)
    assert_close(weights.sum(-1), 1, atol=1e-5)
    assert model.options.covered == SIZE and model.options.grid == (2, 3)
    normal = model.encoder(images, return_intermediates=True)[0]
    assert_close(normal, model.encode(images), atol=1e-4)
    features = model.grid_features(images)
    assert features.shape == (2, 2, 3, 32)
    assert_close(np.asarray(features).reshape(2, 6, 32), model.encode(images)[:, -6:])


@pytest.mark.parametrize("name", ["R50x1", "Swin-T", "ResNet-18", "RegNetY-160"])
def test_other_families_have_features_of_places_but_no_attention_between_all(name):
    def features(images):
        model = vit_jax.create(name, image_size=(64, 96), num_classes=3)
        return model.grid_features(images), model.features(images), model.attention_weights(images)

    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    places, pooled, weights = jax.eval_shape(features, images)
    assert places.shape[:3] == (2, 2, 3) and places.shape[3] == pooled.shape[1]
    assert weights is None


def test_components_are_those_of_all_images_together():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2, 3, 4, 8)) * np.array([9, 6, 3, 1, 1, 1, 1, 1])
    colours = components.colours(features)
    assert colours.shape == (2, 3, 4, 3) and colours.min() == 0 and colours.max() == 1
    flat = features.reshape(-1, 8) - features.reshape(-1, 8).mean(0)
    left, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    for channel in range(3):
        values = left[:, channel] * sizes[channel]
        inside = (colours[..., channel].ravel() > 0) & (colours[..., channel].ravel() < 1)
        of_colour = np.corrcoef(values[inside], colours[..., channel].ravel()[inside])[0, 1]
        assert abs(of_colour) == pytest.approx(1, abs=1e-9)


def test_features_that_do_not_vary_are_grey_and_two_channels_have_two_colours():
    assert (components.colours(np.ones((1, 2, 2, 5))) == 0.5).all()
    two = components.colours(np.random.default_rng(0).normal(size=(1, 4, 4, 2)))
    assert (two[..., 2] == 0.5).all() and np.ptp(two[..., :2]) == 1


def test_pictures_have_a_map_for_each_head(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), np.uint8)
    maps = np.random.default_rng(1).uniform(size=(3, 2, *SIZE))
    figure = attention_figures.class_attention(images, maps)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["input", "head 1", "head 2"]
    assert (
        len({axes.images[1].get_clim() for axes in figure.axes[:9] if len(axes.images) == 2}) == 1
    )
    by_layer = attention_figures.layers_attention(images[0], maps[:, :, ::8, ::8])
    distance = attention_figures.attention_distance(np.ones((3, 2)), equal=2.0, images=9)
    drawn = (
        figure,
        by_layer,
        distance,
        attention_figures.rollout(images, maps[:, 0]),
        attention_figures.feature_colours(images, np.stack([maps[:, 0]] * 3, axis=-1)[:, ::8, ::8]),
    )
    for number, one in enumerate(drawn):
        one.savefig(tmp_path / f"{number}.png", dpi=60)
        assert (tmp_path / f"{number}.png").stat().st_size > 2000
