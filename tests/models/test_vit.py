"""Properties of the whole model: scan, remat, randomness, precision, intermediates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.models.classifier import Classifier
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.resnet import StemOptions
from vit_jax.models.stack import Intermediates

forward = jax.jit(
    lambda model, images, key=None, *, intermediates=False: model(
        images, key=key, return_intermediates=intermediates
    ),
    static_argnames="intermediates",
)


# Compiles faster than the default kind of key.
KEYS = [jax.random.key(seed, impl="rbg") for seed in range(3)]


def seen(model: Classifier, images: jax.Array, key: jax.Array | None = None) -> Intermediates:
    return forward(model, images, key, intermediates=True)[1]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return tiny.model()


@pytest.fixture(scope="module")
def outputs(model) -> tuple[jax.Array, Intermediates]:
    return forward(model, tiny.images(), intermediates=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "token", "position_at": "every_block"},
        {"pool": "map", "position": "learned_2d", "position_at": "every_block"},
    ],
)
def test_the_scan_is_a_loop_of_single_blocks(changes) -> None:
    model, images = tiny.model(**changes), tiny.images()
    logits, scanned = forward(model, images, intermediates=True)
    features, expected = jax.jit(by_hand)(model, images)
    assert_close(scanned.features, features, atol=2e-5)
    assert_close(logits, expected, atol=2e-5)


def by_hand(model: Classifier, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features of every block and logits, one block after the other."""
    graphdef, params = nnx.split(model.encoder.blocks)
    x = model.encoder.add_prefix(model.encoder.patches(images))
    table, features = model.encoder.position_table(), []
    for layer in range(model.options.depth):
        if table is not None:
            x = x.at[:, x.shape[1] - table.shape[-2] :].add(table[layer])
        block = nnx.merge(graphdef, jax.tree.map(lambda p, i=layer: p[i], params))
        x, _ = block(x)
        features.append(x)
    x = model.encoder.norm(x)
    x = x[:, 0] if model.options.pool == "token" else model.pool(x)
    return jnp.stack(features), model.head(x)


def gradients(**changes: Any) -> tuple[jax.Array, Any]:
    """Loss and gradients; the backward pass must draw the same dropout masks again."""
    rates: dict[str, Any] = {"dropout": 0.2, "drop_path": 0.3}
    graphdef, params = nnx.split(tiny.model(**rates, **changes, depth=2))

    @jax.jit
    def run(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        def loss(params: Any) -> jax.Array:
            return (nnx.merge(graphdef, params)(images, key=KEYS[0]) ** 2).mean()

        return jax.value_and_grad(loss)(params)

    value, grads = run(params, tiny.images())
    return value, nnx.to_pure_dict(grads)


@pytest.fixture(scope="module")
def plain_gradients() -> tuple[jax.Array, Any]:
    return gradients(remat="none")


@pytest.mark.parametrize(
    "changes",
    [{"remat": "dots"}, {"remat": "lean"}, {"remat": "full"}, {"remat": "none", "unroll": 2}],
    ids=str,
)
def test_remat_and_unroll_change_nothing(plain_gradients, changes) -> None:
    value, grads = gradients(**changes)
    assert_close(value, plain_gradients[0], scaled=1e-5)
    assert_close(grads, plain_gradients[1], atol=1e-5)


def test_remat_saves_less() -> None:
    """Bytes the backward pass keeps of the forward pass: full < lean < dots < none."""

    def kept(remat: str) -> int:
        graphdef, params = nnx.split(tiny.model(depth=6, remat=remat))
        run = lambda params, images: nnx.merge(graphdef, params)(images).sum()  # noqa: E731
        _, backward = jax.eval_shape(lambda p, x: jax.vjp(run, p, x), params, tiny.images(32))
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < kept("lean") < kept("dots") < kept("none")


def test_remat_of_a_decoder_saves_less() -> None:
    sizes = DecoderOptions(width=32, depth=6, mlp_dim=48, num_heads=4)
    noise = np.random.default_rng(0).uniform(size=(32, 6))

    def kept(remat: Any) -> int:
        options = {"decoder": sizes, "fixed_position": True, "num_classes": 0, "depth": 1}
        graphdef, params = nnx.split(tiny.model(**options, remat=remat))
        run = lambda params: nnx.merge(graphdef, params).reconstruct(  # noqa: E731
            tiny.images(32), noise=noise
        )[0]
        _, backward = jax.eval_shape(lambda p: jax.vjp(run, p), params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < 0.5 * kept("none")


def test_layers_are_unrolled_as_asked() -> None:
    graphdef, params = nnx.split(tiny.model(unroll=3))
    program = jax.make_jaxpr(lambda p, x: nnx.merge(graphdef, p)(x))(params, tiny.images())
    scans = [e for e in program.jaxpr.eqns if e.primitive.name == "scan"]
    assert [scan.params["unroll"] for scan in scans] == [3]


def test_no_key_is_deterministic(model, outputs) -> None:
    random = tiny.model(dropout=0.5, attention_dropout=0.5, drop_path=0.5)
    assert_close(forward(random, tiny.images()), outputs[0], atol=1e-5)


def test_the_same_key_gives_the_same_dropout() -> None:
    model, images = tiny.model(dropout=0.5, attention_dropout=0.3), tiny.images()
    one, again, other = (forward(model, images, KEYS[k]) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-2


def with_constant_branches(
    *, attention: float = 0.0, mlp: float = 1.0, **changes: Any
) -> Classifier:
    """A model whose attention and MLP add these numbers to every element, before dropping."""
    model = tiny.model(**changes)
    for layer, bias in (
        (model.encoder.blocks.attention.out, attention),
        (model.encoder.blocks.mlp.fc2, mlp),
    ):
        layer.kernel[...] = jnp.zeros(layer.kernel.shape)
        assert layer.bias is not None
        layer.bias[...] = jnp.full((model.options.depth, 32), bias)
    return model


def test_every_layer_has_its_own_dropout_mask() -> None:
    model = with_constant_branches(dropout=0.5, depth=4)
    features = np.asarray(seen(model, tiny.images(16), KEYS[0]).features)
    masks = np.diff(features, axis=0) > 1  # (3, B, T, D): 2 where kept, else 0
    for layer, mask in enumerate(masks):
        assert mask.mean() == pytest.approx(0.5, abs=0.03)
        for other in masks[:layer]:
            assert (mask == other).mean() == pytest.approx(0.5, abs=0.03)
    for sample in range(1, 16):
        assert (masks[:, 0] == masks[:, sample]).mean() == pytest.approx(0.5, abs=0.1)


def test_drop_path_grows_linearly_and_keeps_the_mean() -> None:
    model = with_constant_branches(drop_path=0.4, depth=5)
    images, key = tiny.images(2000), KEYS[0]
    features = np.asarray(seen(model, images, key).features)
    added = np.diff(features, axis=0)  # of layers 2 to 5
    assert_close(added, added[:, :, :1, :1].repeat(7, 2).repeat(32, 3), atol=1e-4)
    for rate, branch in zip((0.1, 0.2, 0.3, 0.4), added[:, :, 0, 0], strict=True):
        assert_close(np.unique(branch.round(3)), [0, round(1 / (1 - rate), 3)], scaled=1e-7)
        assert (branch < 0.5).mean() == pytest.approx(rate, abs=0.035)  # 3 deviations
    drops = added[:, :, 0, 0] < 0.5
    assert (drops[2] & drops[3]).mean() == pytest.approx(0.12, abs=0.025), "layers are independent"


def test_drop_path_has_one_rate_where_it_does_not_grow() -> None:
    model = with_constant_branches(drop_path=0.4, drop_path_grows=False, depth=4)
    features = np.asarray(seen(model, tiny.images(1000), KEYS[0]).features)
    for branch in np.diff(features, axis=0)[:, :, 0, 0]:
        assert_close(np.unique(branch.round(3)), [0, round(1 / 0.6, 3)], rtol=1e-7)
        assert (branch < 0.5).mean() == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("rate", ["drop_path", "dropout"])
def test_the_two_branches_of_a_block_are_dropped_independently(rate) -> None:
    model = with_constant_branches(attention=1, mlp=10, depth=2, **{rate: 0.5})
    features = np.asarray(seen(model, tiny.images(2000), KEYS[0]).features)
    added, counts = np.unique((features[1] - features[0]).round(2), return_counts=True)
    assert added.tolist() == [0, 2, 20, 22]
    assert_close(counts / counts.sum(), 0.25, atol=0.03)  # 3 deviations


def test_dropout_follows_the_projection_of_the_attention() -> None:
    model = with_constant_branches(attention=1, mlp=0, dropout=0.25, depth=2)
    features = np.asarray(seen(model, tiny.images(32), KEYS[0]).features)
    added = features[1] - features[0]
    assert_close(np.unique(added.round(3)), [0, 1.333], scaled=1e-7)
    assert (added < 0.5).mean() == pytest.approx(0.25, abs=0.02)


def test_the_embedded_tokens_are_dropped_before_the_first_norm() -> None:
    model = with_constant_branches(mlp=0, dropout=0.5, depth=1)
    images = tiny.images(16)
    share = np.asarray(seen(model, images, KEYS[0]).features / seen(model, images).features)
    assert_close(np.unique(share.round(3)), [0, 2], scaled=1e-7)
    assert (share < 1).mean() == pytest.approx(0.5, abs=0.03)
    normed = with_constant_branches(mlp=0, dropout=0.5, depth=1, input_norm=True)
    normed.encoder.input_norm.scale[...], normed.encoder.input_norm.bias[...] = (
        jnp.ones(32),
        jnp.zeros(32),
    )
    features = seen(normed, images, KEYS[0]).features
    assert_close(features.mean(-1), 0, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_over_float32_parameters(outputs) -> None:
    model = tiny.model(dtype="bfloat16")
    assert {p.dtype.name for p in jax.tree.leaves(nnx.state(model))} == {"float32"}
    logits, found = forward(model, tiny.images(), intermediates=True)
    assert logits.dtype == jnp.float32
    assert found.features.dtype == jnp.bfloat16
    assert found.attention.dtype == jnp.float32
    difference = np.abs(logits - outputs[0]).max()
    assert 0 < difference < 0.05 * np.abs(outputs[0]).max()


@pytest.mark.parametrize("position", ["learned_1d", "relative"])
def test_nothing_is_promoted_by_accident(position) -> None:
    rates: dict[str, Any] = {"dropout": 0.2, "attention_dropout": 0.2, "drop_path": 0.3}
    graphdef, params = nnx.split(tiny.model(position=position, pool="map", **rates))
    with jax.numpy_dtype_promotion("strict"):
        logits = jax.eval_shape(
            lambda params, x: nnx.merge(graphdef, params)(x, key=KEYS[0]), params, tiny.images()
        )
    assert logits.dtype == jnp.float32


def test_intermediates_are_what_the_output_is_made_of(model, outputs) -> None:
    logits, found = outputs
    assert found.features.shape == (3, 2, 7, 32)
    assert found.attention.shape == (3, 2, 4, 7, 7)
    assert_close(found.attention.sum(-1), 1, atol=1e-6)
    assert (found.attention >= 0).all()
    assert_close(logits, model.head(model.encoder.norm(found.features[-1])[:, 0]), atol=1e-5)


@pytest.mark.parametrize("position", ["learned_1d", "relative"])
@pytest.mark.parametrize("pool", ["gap", "map"])
def test_asking_for_weights_does_not_change_the_logits(position, pool) -> None:
    """Requested weights are computed by other code than `jax.nn.dot_product_attention`."""
    model = tiny.model(position=position, pool=pool, attention="xla", depth=2)
    with_weights, _ = forward(model, tiny.images(), intermediates=True)
    assert_close(forward(model, tiny.images()), with_weights, atol=1e-5)


def test_features_are_the_input_of_the_head() -> None:
    model = tiny.model(pool="gap", representation_size=24, depth=1)
    images = tiny.images()
    features = jax.jit(lambda m, x: m.features(x))(model, images)
    assert features.shape == (2, 24)
    assert np.abs(features).max() <= 1, "tanh"
    assert_close(forward(model, images), model.head(features), atol=1e-5)
    headless = tiny.model(pool="gap", representation_size=24, depth=1, num_classes=0)
    assert not hasattr(headless, "head")
    assert forward(headless, images).shape == (2, 24)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "gap", "class_token": True, "registers": 2, "dtype": "bfloat16"},
        {"pool": "gap", "norm_at": "pooled"},
        {"pool": "token_gap", "registers": 2},
        {"pool": "token", "registers": 2, "norm_at": "pooled"},
    ],
)
def test_features_are_pooled_from_the_tokens_they_are_named_for(changes) -> None:
    """Patches come after all other tokens, and their mean is a float32 one."""
    model = tiny.model(**changes, depth=1)
    images = tiny.images()
    features, tokens = jax.jit(lambda m, x: (m.features(x), m.encode(x)))(model, images)
    patches = np.asarray(tokens.astype(jnp.float32))[:, -6:].mean(1)
    first = np.asarray(tokens.astype(jnp.float32))[:, 0]
    expected: Any = {"gap": patches, "token": first}.get(model.options.pool)
    if expected is None:
        expected = np.concatenate([first, patches], axis=-1)
    if model.options.norm_at == "pooled":
        expected = model.encoder.norm(jnp.asarray(expected))
    assert features.dtype == jnp.float32
    assert_close(features, expected, atol=1e-6)


def test_images_of_another_size_are_refused(model) -> None:
    for shape in ((2, 24, 16, 3), (16, 24, 3), (2, 16, 24, 1)):
        with pytest.raises(ValueError, match=r"images are .* the model takes"):
            model(jnp.zeros(shape))


def test_a_hybrid_downsamples_by_its_stem() -> None:
    stem = StemOptions(num_layers=(1, 1), root_width=32)
    model = tiny.model(stem=stem, image_size=(32, 48), patch_size=(2, 1), depth=1)
    assert model.options.grid == (2, 6)
    assert seen(model, tiny.images(size=(32, 48))).features.shape == (1, 2, 13, 32)
