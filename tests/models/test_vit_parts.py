"""Parts that only some models of the family have: tokens, biases, masks, scales, decoders."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from tests.compare import assert_close
from vit_jax.checkpoints import surgery
from vit_jax.models import decoder, positions, zoo
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.resnet import StemOptions

TINY = ViTOptions(
    image_size=(8, 12),
    patch_size=(4, 4),
    width=16,
    depth=2,
    mlp_dim=24,
    num_heads=2,
    num_classes=3,
)
BEIT: dict[str, Any] = {"position": "none", "key_bias": False, "relative_bias": "per_block"}
MAE: dict[str, Any] = {"decoder": DecoderOptions(), "num_classes": 0}
PATCHES = 6


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "gap", "class_token": True, "norm_at": "pooled"},
        {"pool": "map", "registers": 2, "register_position": True},
        {"pool": "token_gap", "registers": 2},
        {"distillation": True, "class_position": False},
        {"input_norm": True, "patch_bias": False, "qkv_bias": False, "qk_norm": True},
        {"mlp": "swiglu", "layer_scale": 0.1, "activation": "gelu_quick"},
        BEIT | {"pool": "gap", "class_token": True},
        BEIT | {"relative_bias": "shared", "position": "learned_1d"},
    ],
)
def test_every_parameter_matters_and_gives_finite_gradients(changes):
    options = dataclasses.replace(TINY, **changes)
    model = random_model(options)
    images = random_images()

    def loss(model):
        return jnp.square(model(images)).sum()

    gradients = flat(nnx.jit(nnx.grad(loss))(model))
    for path, gradient in gradients.items():
        assert np.isfinite(gradient).all(), path
        if path == "encoder/blocks/attention/qkv/bias":
            gradient = gradient[:, jnp.array([0, 2])]  # a bias of all keys changes no softmax
        assert np.abs(gradient).max() > 0, path


def test_absent_key_bias_has_no_gradient_at_all():
    model = random_model(dataclasses.replace(TINY, **BEIT))
    gradients = flat(nnx.grad(lambda m: jnp.square(m(random_images())).sum())(model))
    np.testing.assert_array_equal(gradients["encoder/blocks/attention/qkv/bias"][:, 1], 0)


def test_two_heads_are_averaged():
    model = random_model(dataclasses.replace(TINY, distillation=True))
    heads = model(random_images(), return_heads=True)
    assert len(heads) == 2
    assert_close(model(random_images()), (heads[0] + heads[1]) / 2, rtol=1e-6)
    features = model.features(random_images())
    tokens = model.encode(random_images())
    assert_close(features, (tokens[:, 0] + tokens[:, 1]) / 2, atol=1e-6)


def test_a_distillation_token_may_have_no_head():
    model = random_model(dataclasses.replace(TINY, distillation=True, distillation_head=False))
    assert model.options.prefix_tokens == 2
    assert len(model(random_images(), return_heads=True)) == 1
    np.testing.assert_array_equal(
        model.features(random_images()), model.encode(random_images())[:, 0]
    )


def test_hidden_patches_do_not_reach_the_model():
    model = random_model(changed(mask_token=True, mim_classes=5, num_classes=0))
    images = random_images()
    mask = np.zeros((2, PATCHES), bool)
    mask[:, 1] = True  # the top middle one
    other = images.at[:, :4, 4:8].set(0.0)
    logits = model.patch_logits(images, mask=mask)
    assert logits.shape == (2, PATCHES, 5)
    np.testing.assert_array_equal(logits, model.patch_logits(other, mask=mask))
    assert np.abs(logits - model.patch_logits(other)).max() > 1e-3


def test_the_distillation_token_is_before_the_registers() -> None:
    """The heads read the first tokens."""
    model = random_model(dataclasses.replace(TINY, distillation=True, registers=2))
    encoder = model.encoder
    tokens = encoder.add_prefix(jnp.zeros((1, PATCHES, 16)))[0, :2]
    tokens = tokens - encoder.position_table()[0, :2]
    np.testing.assert_allclose(tokens[0], encoder.cls[0, 0], atol=1e-6)
    np.testing.assert_allclose(tokens[1], encoder.distillation[0, 0], atol=1e-6)


def test_encoding_all_patches_in_another_order_changes_nothing():
    model = random_model(dataclasses.replace(TINY, registers=1))
    order = jnp.array([[3, 1, 5, 0, 2, 4]] * 2)
    tokens = model.encode(random_images())
    shuffled = model.encode(random_images(), keep=order)
    assert_close(shuffled[:, :2], tokens[:, :2], atol=1e-5)
    assert_close(shuffled[:, 2:], tokens[:, 2:][:, order[0]], atol=1e-5)


def test_an_autoencoder_trains_all_but_its_fixed_positions():
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    options = changed(decoder=sizes, fixed_position=True, num_classes=0)
    model = random_model(options)
    noise = jax.random.uniform(jax.random.key(3), (2, PATCHES))

    def loss(model):
        prediction, mask = model.reconstruct(random_images(), noise=noise, mask_ratio=0.5)
        assert prediction.shape == (2, PATCHES, 4 * 4 * 3)
        assert mask.shape == (2, PATCHES)
        return jnp.square(prediction * mask[..., None].astype(jnp.float32)).sum()

    gradients = flat(nnx.jit(nnx.grad(loss))(model))
    fixed = {path for path, g in gradients.items() if not np.abs(g).max() > 0}
    assert fixed == {"encoder/position", "decoder/position"}


def test_predictions_of_pixels_and_visual_tokens_are_float32_and_of_patches_only():
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    noise = np.random.default_rng(0).uniform(size=(2, PATCHES))
    for registers in (0, 2):
        half: dict[str, Any] = {"dtype": "bfloat16", "registers": registers, "num_classes": 0}
        painter = random_model(changed(decoder=sizes, **half))
        pixels, mask = jax.eval_shape(
            lambda m: m.reconstruct(random_images(), noise=noise), painter
        )
        assert (pixels.shape, pixels.dtype) == ((2, PATCHES, 48), jnp.float32)
        namer = random_model(changed(mim_classes=5, **half))
        logits = jax.eval_shape(lambda m: m.patch_logits(random_images()), namer)
        assert (logits.shape, logits.dtype) == ((2, PATCHES, 5), jnp.float32)


def test_a_decoder_has_the_numerics_of_its_encoder():
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    plain = changed(decoder=sizes, num_classes=0)
    biased = {name for name in surgery.shapes(plain) if name.endswith("qkv/bias")}
    assert len(biased) == 2
    unbiased = dataclasses.replace(plain, qkv_bias=False)
    assert set(surgery.shapes(plain)) - set(surgery.shapes(unbiased)) == biased


def test_three_quarters_are_hidden_by_default():
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    model = random_model(changed(decoder=sizes, image_size=(16, 12), num_classes=0))
    noise = np.random.default_rng(0).uniform(size=(2, 12))
    _, mask = model.reconstruct(jnp.ones((2, 16, 12, 3)), noise=noise)
    assert mask.sum(axis=1).tolist() == [9, 9]


def test_fixed_positions_are_in_raster_order_on_a_grid_that_is_not_square():
    """As in MAE's code: sines and cosines of the column, then of the row."""
    sizes = DecoderOptions(width=8, depth=1, mlp_dim=12, num_heads=2)
    options = changed(decoder=sizes, fixed_position=True, num_classes=0)
    widths = {"encoder/position": 16, "decoder/position": 8}

    @jax.jit
    def new():
        state = flat(nnx.state(zoo.init(options, key=jax.random.key(0))))
        return {path: state[path] for path in widths}

    for path, table in new().items():
        width, table = widths[path], np.asarray(table)
        omega = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
        assert table.shape == (1, 1 + PATCHES, width)
        assert not table[0, 0].any(), "the class token has none"
        for row in range(2):
            for column in range(3):
                waves = [f(place * omega) for place in (column, row) for f in (np.sin, np.cos)]
                assert_close(table[0, 1 + 3 * row + column], np.concatenate(waves), atol=1e-6)


def test_the_largest_noise_is_hidden():
    noise = jnp.array([[0.1, 0.9, 0.3, 0.8]])
    masking = decoder.random_masking(noise, ratio=0.5)
    assert masking.keep.tolist() == [[0, 2]]
    assert masking.mask.tolist() == [[False, True, False, True]]
    rounded = decoder.random_masking(jnp.zeros((1, 6)), ratio=0.75)
    assert rounded.keep.shape == (1, 1), "as MAE's code: rounded down"
    with pytest.raises(ValueError, match="mask ratio 0.9 hides 4 of 4 patches"):
        decoder.random_masking(noise, ratio=0.9)


def test_relative_rows_are_equal_where_offsets_are():
    index = positions.relative_index((2, 3))
    patches = index[1:, 1:].reshape(2, 3, 2, 3)
    assert patches[0, 0, 0, 1] == patches[1, 1, 1, 2]  # one to the right
    assert len(np.unique(patches)) == 3 * 5
    assert (index[0, 1:] == 15).all()
    assert (index[1:, 0] == 16).all()
    assert index[0, 0] == 17


def test_shared_and_per_block_relative_tables_agree():
    shared = random_model(dataclasses.replace(TINY, **BEIT | {"relative_bias": "shared"}))
    own = random_model(dataclasses.replace(TINY, **BEIT))
    params = flat(nnx.state(shared))
    table = params.pop("encoder/relative_bias")
    params["encoder/blocks/attention/relative_bias"] = jnp.stack([table, table])
    nnx.update(own, traverse_util.unflatten_dict(params, sep="/"))
    assert_close(own(random_images()), shared(random_images()), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_token": False}, "needs the class token"),
        ({"distillation": True, "pool": "gap", "class_token": True}, "set pool to 'token'"),
        ({"pool": "map", "norm_at": "pooled"}, "needs normalised tokens"),
        ({"relative_bias": "shared", "registers": 1}, "no other tokens"),
        ({"registers": 1, "position_at": "every_block"}, "rows for all tokens"),
        ({"register_position": True, "class_position": False}, "needs class_position"),
        ({"fixed_position": True, "position": "none"}, "fixed_position needs"),
        (
            MAE | {"position": "sincos2d"},
            "masked autoencoder needs",
        ),
        (MAE | {"relative_bias": "shared"}, "relative_bias 'shared' is for all patches"),
        (MAE | {"relative_bias": "per_block"}, "relative_bias 'per_block' is for all patches"),
        (MAE | {"stem": StemOptions(), "patch_size": (1, 1)}, "it cannot have a stem"),
        ({"mlp": "relu"}, "mlp is 'relu'"),
        ({"registers": -1}, "registers is -1"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        changed(**changes)


def changed(**changes: Any) -> Any:
    return zoo.of_parts(**vars(TINY) | changes)


def random_model(options: ViTOptions) -> Any:
    """All parameters are random; none keeps an initial value of zero or one."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: zoo.init(options, key=jax.random.key(0))))
    rng = np.random.default_rng(0)
    drawn = {
        path: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32)
        for path, leaf in flat(state).items()
    }
    return nnx.merge(graphdef, traverse_util.unflatten_dict(drawn, sep="/"))


def random_images() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 12, 3)), jnp.float32)


def flat(state: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
