"""Tests of single layers: norms and attention."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.models import heads, layers
from vit_jax.models.resnet import StemOptions, group_norm
from vit_jax.models.sharding import LANES


def test_norm_statistics_are_float32() -> None:
    """bfloat16 statistics would lose a deviation of 1 beside a mean of 30."""
    x = jnp.asarray(30 + np.random.default_rng(0).normal(size=(4, 256)), jnp.bfloat16)
    norm = layers.layer_norm(256, 1e-6, "bfloat16", nnx.Rngs(0))
    assert norm.scale is not None
    assert norm.scale[...].dtype == jnp.float32
    out = norm(x)
    assert out.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    exact = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    assert_close(np.asarray(out, np.float64), exact, rtol=2**-7, atol=1e-3)


def test_norms_do_not_cancel_where_the_mean_is_large() -> None:
    """E[x^2] - E[x]^2 of a mean of 1000 loses two digits of a deviation of 1 in float32."""
    x = 1000 + np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    exact = (x - x.mean(1, keepdims=True, dtype=np.float64)) / x.std(1, keepdims=True, dtype="f8")
    out = layers.layer_norm(256, 1e-6, "float32", nnx.Rngs(0))(jnp.asarray(x))
    assert_close(out, exact, atol=1e-3)
    stem = StemOptions(groups=1)
    grouped = group_norm(stem, 256, dtype="float32", rngs=nnx.Rngs(0))(jnp.asarray(x))
    assert_close(grouped, exact, atol=1e-3)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_norms_add_their_epsilon_to_the_variance(eps) -> None:
    x = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    variance = x.var(1, keepdims=True)
    exact = (x - x.mean(1, keepdims=True)) / np.sqrt(variance + eps)
    out = layers.layer_norm(32, eps, "float32", nnx.Rngs(0))(jnp.asarray(x))
    assert_close(out, exact, atol=1e-5)
    stem = StemOptions(groups=1, norm_eps=eps)
    grouped = group_norm(stem, 32, dtype="float32", rngs=nnx.Rngs(0))(jnp.asarray(x))
    assert_close(grouped, exact, atol=1e-5)


def test_activations_are_those_of_their_definitions() -> None:
    x = np.linspace(-4, 4, 33).astype(np.float32)
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    expected = {
        "gelu_erf": x * np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]),
        "gelu_tanh": x * 0.5 * (1 + np.tanh(inner)),
        "gelu_quick": x / (1 + np.exp(-1.702 * x)),
    }
    for kind, values in expected.items():
        assert_close(layers.gelu(jnp.asarray(x), kind), values, atol=1e-6)


def test_the_first_half_of_a_gated_mlp_is_the_gate() -> None:
    rng = np.random.default_rng(0)
    mlp = layers.Mlp(tiny.options(mlp="swiglu", mlp_dim=6).block(), rngs=nnx.Rngs(0))
    hidden, kernel = rng.normal(size=(2, 12)), rng.normal(size=(6, 32))
    mlp.fc1.kernel[...] = jnp.zeros((32, 12)).at[0].set(hidden[0])
    mlp.fc1.bias[...], mlp.fc2.kernel[...] = jnp.asarray(hidden[1], "f4"), jnp.asarray(kernel, "f4")
    gate, value = np.split(hidden[0] + hidden[1], 2)
    expected = (gate / (1 + np.exp(-gate)) * value) @ kernel
    assert_close(mlp(jnp.ones((1, 1, 32)))[0, 0], expected, atol=1e-4)


def test_attention_weights_are_a_float32_softmax() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(3 * rng.normal(size=(2, 6, 4, 8)), jnp.bfloat16) for _ in range(2))
    weights = layers.attention_weights(q, k, None)
    assert weights.dtype == jnp.float32
    q64, k64 = np.asarray(q, np.float64), np.asarray(k, np.float64)
    exact = np.exp(np.einsum("bqhd,bkhd->bhqk", q64, k64) / np.sqrt(8))
    exact /= exact.sum(-1, keepdims=True)
    assert_close(weights, exact, atol=1e-6)


@pytest.mark.parametrize("pool", ["token", "map"])
def test_exponentials_and_roots_are_float32_in_a_bfloat16_model(pool) -> None:
    """In softmax and norms, forward and backward; all products except the head's are bfloat16.

    The sums of a norm do not count: on a TPU they are products with ones.
    """
    model = tiny.model(dtype="bfloat16", pool=pool, position="relative", attention="xla")
    graphdef, params = nnx.split(model)

    def total(params, images):
        return nnx.merge(graphdef, params)(images).sum()

    program = jax.make_jaxpr(jax.grad(total))(params, tiny.images())
    dtypes: dict[str, set[str]] = {"exp": set(), "rsqrt": set(), "dot_general": set()}
    for equation in _equations(program.jaxpr):
        if equation.primitive.name in dtypes:
            dtypes[equation.primitive.name].add(equation.invars[0].aval.dtype.name)
    assert dtypes["exp"] == dtypes["rsqrt"] == {"float32"}
    assert dtypes["dot_general"] == {"float32", "bfloat16"}
    wide = [
        e.invars[1].aval.shape
        for e in _equations(jax.make_jaxpr(total)(params, tiny.images()).jaxpr)
        if e.primitive.name == "dot_general" and e.invars[1].aval.dtype == jnp.float32
    ]
    assert set(wide) - {(32, LANES)} == {(32, 5)}, "the head alone"


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def test_attention_dropout_drops_weights() -> None:
    """With one token, dropping its weight drops the whole output of a head."""
    options = tiny.options(attention_dropout=0.5).block()
    key = jax.random.key(1, impl="rbg")

    @jax.jit
    def run(x):
        attention = layers.Attention(options, rngs=nnx.Rngs(key))
        attention.out.kernel[...] = jnp.eye(32).reshape(4, 8, 32)
        trained = attention(x, key=key)[0]
        return attention(x)[0], trained, *attention(x, key=key, return_weights=True)

    plain, trained, dropped, weights = run(jnp.ones((300, 1, 32)))
    np.testing.assert_array_equal(trained, dropped)
    share = np.asarray(dropped / plain).reshape(300, 4, 8)
    assert_close(share, share[..., :1].repeat(8, -1), atol=1e-5)
    assert set(np.unique(share.round(3))) == {0, 2}
    assert (share[..., 0] < 1).mean() == pytest.approx(0.5, abs=0.05)
    assert (np.asarray(weights) == 1).all(), "the weights shown are those before dropout"


def test_all_that_is_dropped_in_a_block_has_a_key_of_its_own(monkeypatch) -> None:
    seen: list[tuple[int, ...]] = []

    def note(x: jax.Array, *rest: Any, key: jax.Array | None = None, **named: Any) -> jax.Array:
        keys = [key, *(value for value in rest if isinstance(value, jax.Array))]
        seen.extend(tuple(jax.random.key_data(k).tolist()) for k in keys if k is not None)
        return x

    for name in ("dropout", "drop_path", "mark"):
        monkeypatch.setattr(layers, name, note)
    options = tiny.options(dropout=0.5, attention_dropout=0.5, drop_path=0.5).block()
    block = layers.Block(options, rngs=nnx.Rngs(0))
    block(jnp.ones((2, 3, 32)), key=jax.random.key(1), drop_rate=0.5)
    # Weights and output of the attention, hidden values and output of the MLP, two branches.
    assert len(seen) == len(set(seen)) == 6


def test_each_layer_of_the_mlp_is_followed_by_its_own_dropout() -> None:
    """All hidden values are one and pass unchanged; two dropouts of 1/2 keep a quarter of them."""
    options = tiny.options(dropout=0.5, mlp_dim=32).block()
    key = jax.random.key(1, impl="rbg")

    @jax.jit
    def run(x):
        mlp = layers.Mlp(options, rngs=nnx.Rngs(key))
        mlp.fc1.kernel[...], mlp.fc1.bias[...] = jnp.zeros((32, 32)), jnp.full(32, 20.0)
        mlp.fc2.kernel[...], mlp.fc2.bias[...] = jnp.eye(32) / 20, jnp.zeros(32)
        return mlp(x, key=key)

    out = np.asarray(run(jnp.ones((30, 10, 32))))
    assert_close(np.unique(out.round(4)), [0, 4], rtol=1e-7)
    assert (out > 0).mean() == pytest.approx(0.25, abs=0.02)


def test_the_attention_of_a_pool_is_dropped_too() -> None:
    key = jax.random.key(1, impl="rbg")

    @jax.jit
    def run(x):
        pool = heads.AttentionPool(tiny.options(dropout=0.5).plain_block(), rngs=nnx.Rngs(key))
        pool.attention.out.kernel[...] = jnp.zeros((4, 8, 32))
        pool.attention.out.bias[...] = jnp.ones(32)
        pool.mlp.fc2.kernel[...] = jnp.zeros((48, 32))
        pool.mlp.fc2.bias[...] = jnp.full(32, 10.0)
        return pool(x), pool(x, key=key)

    plain, dropped = run(jnp.ones((200, 2, 32)))
    np.testing.assert_array_equal(plain, 11)
    values, counts = np.unique(dropped, return_counts=True)
    assert values.tolist() == [0, 2, 20, 22]
    assert_close(counts / dropped.size, 0.25, atol=0.03)


def test_a_classifier_drops_in_its_pool_while_it_trains(monkeypatch) -> None:
    seen = []
    pooled = heads.AttentionPool.__call__

    def note(pool: Any, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        seen.append(key)
        return pooled(pool, x, key=key)

    monkeypatch.setattr(heads.AttentionPool, "__call__", note)
    model, images = tiny.model(pool="map", class_token=False, dropout=0.5), tiny.images(1)
    model(images)
    model(images, key=jax.random.key(1))
    assert seen[0] is None and seen[1] is not None


def test_attention_needs_heads_that_divide_the_width() -> None:
    options = layers.BlockOptions(width=32, mlp_dim=8, num_heads=3)
    with pytest.raises(ValueError, match="width 32 does not divide into 3 heads"):
        layers.Attention(options, rngs=nnx.Rngs(0))


def test_a_position_table_may_leave_the_class_token_out() -> None:
    x, table = jnp.zeros((2, 4, 3)), jnp.ones((1, 3, 3))
    np.testing.assert_array_equal(layers.add_position(x, table)[1, :, 0], [0, 1, 1, 1])
