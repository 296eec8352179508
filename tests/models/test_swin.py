"""Properties of Swin and of its windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load, surgery
from vit_jax.models import zoo
from vit_jax.models.swin import SwinOptions
from vit_jax.models.windows import Windows, shrink

TINY = SwinOptions(
    image_size=(24, 40),
    patch_size=(2, 2),
    width=8,
    depths=(1, 2),
    num_heads=(2,),
    windows=((4, 4),),
    num_classes=3,
)
KEY = jax.random.key(0, impl="rbg")  # compiles faster than the default kind


@pytest.mark.parametrize("padding", ["after_shift", "before_shift"])
@pytest.mark.parametrize("grid", [(8, 8), (7, 10), (4, 9)])
def test_windows_are_joined_as_they_were_cut(grid, padding):
    windows = Windows(grid=grid, window=(4, 3), padding=padding)
    x = jnp.arange(2.0 * grid[0] * grid[1] * 3).reshape(2, *grid, 3)
    for shifted in (0, 1):
        cut = windows.cut(x, jnp.asarray(shifted))
        assert cut.shape[1:] == (2, 12, 3)
        np.testing.assert_array_equal(windows.join(cut, jnp.asarray(shifted)), x)


def test_the_mask_separates_features_that_only_the_shift_joined():
    windows = Windows(grid=(8, 8), window=(4, 4), padding="after_shift")
    y, x = np.mgrid[:8, :8]
    place = jnp.asarray(np.stack([y, x], -1)[None].astype(np.float32))
    tokens = np.asarray(windows.cut(place, jnp.asarray(1)))[:, 0]  # (W, N, 2)
    far = np.abs(tokens[:, :, None] - tokens[:, None, :]).max(-1) >= 4
    np.testing.assert_array_equal(windows.mask() < 0, far)
    assert set(np.unique(windows.mask())) == {-100, 0}


def test_an_axis_that_a_window_covers_does_not_shift():
    assert Windows(grid=(4, 8), window=(4, 4), padding="after_shift").shift == (0, 2)
    assert Windows(grid=(4, 8), window=(4, 4), padding="before_shift").shift == (0, 0)
    with pytest.raises(ValueError, match="load the model with their image_size"):
        Windows(grid=(3, 8), window=(4, 4), padding="after_shift")


def test_a_window_shrinks_where_features_are_fewer():
    """In timm each axis shrinks separately, in Hugging Face both shrink to the shorter one."""
    for grid, alone, both in (
        ((3, 8), (3, 4), (3, 3)),
        ((4, 8), (4, 4), (4, 4)),
        ((8, 2), (4, 2), (2, 2)),
        ((5, 6), (4, 4), (4, 4)),
    ):
        assert shrink((4, 4), grid, "after_shift") == alone
        assert shrink((4, 4), grid, "before_shift") == both
    assert shrink((4, 6), (5, 5), "before_shift") == (4, 6)
    assert shrink((4, 6), (4, 9), "before_shift") == (4, 4)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: nnx.state(zoo.init(TINY, key=jax.random.key(0))))()


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (2, 24, 40, 3))


def with_options(**changes):
    """The tiny model with other options; the same parameters fit all of them."""
    options = zoo.change(TINY, **changes)
    return nnx.split(nnx.eval_shape(lambda: zoo.init(options, key=jax.random.key(0))))[0]


def test_remat_and_unroll_change_no_gradient(params, images):
    def gradient(**changes):
        model = with_options(**changes)
        loss = lambda params: jnp.square(nnx.merge(model, params).features(images)).mean()  # noqa: E731
        return jax.tree.leaves(jax.jit(jax.grad(loss))(params))

    for a, b in zip(gradient(), gradient(remat="full", unroll=2), strict=True):
        assert_close(a, b, atol=1e-5)
        assert np.isfinite(a).all()


def test_bfloat16_is_close_to_float32(params, images):
    plain, half = (
        jax.jit(nnx.merge(with_options(dtype=dtype), params).encode)(images)
        for dtype in ("float32", "bfloat16")
    )
    assert half.dtype == jnp.bfloat16
    assert_close(plain, half.astype(jnp.float32), atol=0.1)


def test_the_model_is_random_only_with_a_key(params, images):
    model = with_options(dropout=0.2, attention_dropout=0.2, drop_path=0.5)
    features = jax.jit(lambda key: nnx.merge(model, params).features(images, key=key))
    plain = features(None)
    np.testing.assert_array_equal(plain, features(None))
    a, b = features(jax.random.key(2)), features(jax.random.key(3))
    assert not np.allclose(a, plain) and not np.allclose(a, b)


def clusters(values: np.ndarray) -> np.ndarray:
    """The distinct values, where those within 0.03 of the one below count as one."""
    ordered = np.sort(values.ravel())
    return ordered[np.diff(ordered, prepend=-np.inf) > 0.03]


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("depths", [(4,), (1, 1, 2)])
def test_drop_path_grows_over_all_stages_to_the_last_block(depths, grows):
    """A block of the last stage adds 1 to half the channels and -1 to the rest, or is dropped."""
    eps = 0.5
    options = zoo.change(TINY, depths=depths, image_size=(16, 16), drop_path=0.6,
                         drop_path_grows=grows, norm_eps=eps, num_classes=0)  # fmt: skip
    params = {path: np.zeros(shape, np.float32) for path, shape in surgery.shapes(options).items()}
    params["norm/scale"] += 1
    params[f"stage{len(depths)}/blocks/mlp/fc2/bias"] += (-1) ** np.arange(options.feature_size)
    model, images = load.assemble(options, params), jnp.zeros((400, 16, 16, 3))
    normed = jax.jit(lambda m, x: m(x, key=KEY))(model, images)[:, 0]
    added = np.asarray(normed * jnp.sqrt(eps / (1 - normed**2)))  # before the norm
    sums = [0.0]
    for rate in [0.6 * i / 3 if grows else 0.6 for i in range(4)][-depths[-1] :]:
        sums = [a + b for a in sums for b in ((0, 1 / (1 - rate)) if rate else (1,))]
    assert_close(clusters(added), clusters(np.asarray(sums)), atol=0.02)


def test_the_two_branches_of_a_block_are_dropped_independently():
    eps = 0.5
    options = zoo.change(TINY, depths=(2,), image_size=(8, 8), drop_path=0.5,
                         norm_eps=eps, num_classes=0)  # fmt: skip
    params = {path: np.zeros(shape, np.float32) for path, shape in surgery.shapes(options).items()}
    params["norm/scale"] += 1
    params["stage1/blocks/attention/out/bias"] += 0.1 * (-1) ** np.arange(8)
    params["stage1/blocks/mlp/fc2/bias"] += (-1) ** np.arange(8)
    model, images = load.assemble(options, params), jnp.zeros((2000, 8, 8, 3))
    normed = jax.jit(lambda m, x: m(x, key=KEY))(model, images)[:, 0]
    added = np.asarray(normed * jnp.sqrt(eps / (1 - normed**2))) - 1.1  # of the second block
    values, counts = np.unique(added.round(2), return_counts=True)
    assert_close(values, [0, 0.2, 2, 2.2], atol=0.02)
    assert_close(counts / 2000, 0.25, atol=0.03)  # 3 deviations


def test_embedded_patches_are_dropped():
    options = zoo.change(TINY, depths=(1,), image_size=(8, 8), dropout=0.5, norm_eps=0.5)
    params = {path: np.zeros(shape, np.float32) for path, shape in surgery.shapes(options).items()}
    params["norm/scale"] += 1
    params["embedding_norm/bias"] += (-1) ** np.arange(8)
    model, images = load.assemble(options, params), jnp.zeros((8, 8, 8, 3))
    encode = jax.jit(lambda m, x, key: m.encode(x, key=key))
    plain, dropped = encode(model, images, None), np.asarray(encode(model, images, KEY))
    assert np.unique(np.abs(plain).round(3)).size == 1
    assert np.unique(np.abs(dropped).round(3)).size > 5


@pytest.mark.parametrize("padding", ["before_shift", "after_shift"])
def test_incomplete_patches_and_odd_features_are_padded_at_the_end(padding):
    """If the size is not a multiple, the features are those of the image padded with zeros."""
    options = zoo.change(
        TINY, padding=padding, depths=(1, 1), image_size=(16, 16), windows=((2, 2),)
    )
    model = load.assemble(options, tiny.params(options))
    images = jax.random.normal(KEY, (1, 14, 14, 3))
    encode = jax.jit(lambda m, x: m.encode(x))
    if padding == "before_shift":
        padded = jnp.pad(images[:, :13, :11], ((0, 0), (0, 1), (0, 1), (0, 0)))
        np.testing.assert_array_equal(encode(model, images[:, :13, :11]), encode(model, padded))
    odd = encode(model, images)  # 7 x 7 features, merged to 4 x 4
    merge = model.stage2.merge
    x = jax.random.normal(KEY, (1, 3, 5, 8))
    even = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    np.testing.assert_array_equal(merge(x), merge(even))
    assert odd.shape == (1, 4, 4, 16)


def test_a_position_table_fixes_both_sides_of_the_images():
    options = zoo.change(TINY, position="learned_1d")
    model = load.assemble(options, tiny.params(options))
    with pytest.raises(
        ValueError, match="images have 20x12 patches, but the model's positions are for"
    ):
        jax.eval_shape(lambda x: model(x), jnp.zeros((1, 40, 24, 3)))


def test_features_are_a_float32_mean(params, images):
    model = nnx.merge(with_options(dtype="bfloat16"), params)
    features, encoded = jax.jit(lambda m, x: (m.features(x), m.encode(x)))(model, images)
    assert features.dtype == jnp.float32
    assert_close(features, np.asarray(encoded, np.float32).mean((1, 2)), atol=1e-6)


def test_remat_saves_less_and_layers_are_unrolled_as_asked():
    def program(**changes):
        options = zoo.change(TINY, depths=(6,), **changes)
        graphdef, params = nnx.split(nnx.eval_shape(lambda: zoo.init(options, key=KEY)))
        return lambda params, x: nnx.merge(graphdef, params)(x).sum(), params

    def kept(remat):
        run, params = program(remat=remat)
        images = jax.ShapeDtypeStruct((8, 24, 40, 3), jnp.float32)
        _, backward = jax.eval_shape(lambda p, x: jax.vjp(run, p, x), params, images)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("full") < kept("dots") < kept("none")
    run, params = program(unroll=3)
    images = jax.ShapeDtypeStruct((1, 24, 40, 3), jnp.float32)
    scans = [e for e in jax.make_jaxpr(run)(params, images).eqns if e.primitive.name == "scan"]
    assert [scan.params["unroll"] for scan in scans] == [3]


def test_windows_draw_different_dropout():
    """Windows with equal features get different outputs when attention weights are dropped.

    The key is of the default kind: under vmap, equal "rbg" keys give different numbers anyway.
    """
    options = zoo.change(TINY, depths=(1,), image_size=(16, 16), attention_dropout=0.5)
    model = load.assemble(options, tiny.params(options))
    encode = jax.jit(lambda m, x, key: m.encode(x, key=key))
    for key, equal in ((None, True), (jax.random.key(0), False)):
        encoded = np.asarray(encode(model, jnp.ones((1, 16, 16, 3)), key)[0])
        for other in (encoded[:4, 4:], encoded[4:, :4], encoded[4:, 4:]):
            assert np.allclose(encoded[:4, :4], other, atol=1e-5) == equal


def test_the_zoo_makes_the_published_sizes():
    for name, published in {"Swin-T": 28.3e6, "Swin-L": 196.5e6}.items():
        shapes = jax.eval_shape(lambda n=name: nnx.state(zoo.create(n)))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert parameters == pytest.approx(published, rel=2e-3)


def test_sizes_that_do_not_fit_are_refused():
    for changes, message in (
        ({"image_size": (25, 40)}, "not a multiple of the patch"),
        ({"num_heads": (2, 4, 8)}, "give one for each of 2 stages"),
        ({"num_heads": (3,)}, "does not divide into 3 heads"),
        ({"windows": ((0, 4),)}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.change(TINY, **changes)
