"""Dropout and drop_path; what an MLP drops in its hidden values is marked and not drawn again."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.models import dropping, layers
from vit_jax.models.remat import checkpointed

KEY = jax.random.key(3)


def test_dropout_keeps_the_mean() -> None:
    x = jnp.full((200, 500), 3.0)
    out = np.asarray(dropping.dropout(x, 0.3, jax.random.key(0)))
    assert set(np.unique(out)) == {np.float32(0), np.float32(np.float32(3) / np.float32(0.7))}
    assert (out == 0).mean() == pytest.approx(0.3, abs=0.005)  # 3 deviations
    assert out.mean() == pytest.approx(3, abs=0.02)


def test_without_a_key_nothing_is_dropped() -> None:
    x = jnp.ones((2, 3, 4))
    assert dropping.dropout(x, 0.5, None) is x
    assert dropping.drop_path(x, rate=0.5, key=None) is x


def test_drop_path_drops_whole_samples() -> None:
    out = np.asarray(dropping.drop_path(jnp.ones((2000, 2, 3)), rate=0.25, key=jax.random.key(0)))
    assert (out == out[:, :1, :1]).all()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (out[:, 0, 0] == 0).mean() == pytest.approx(0.25, abs=0.03)


def test_rates_of_the_blocks_and_what_is_kept_are_timms(shared) -> None:
    io = np.load(shared / "fixtures/timm_droppath/io.npz")
    rates = jnp.linspace(*tiny.options(depth=12, drop_path=0.1).drop_path_rates, 12)
    assert_close(rates, io["rates_depth12_rate0p1"], rtol=1e-6)
    out = dropping.drop_path(jnp.ones((64, 1, 3)), rate=0.25, key=jax.random.key(0))
    assert_close(np.unique(out), np.unique(io["out"]), rtol=1e-6)


@functools.partial(jax.jit, static_argnames=("activation", "marks"))
def dropped(x: jax.Array, *, activation: Any, marks: bool) -> tuple[jax.Array, jax.Array]:
    """Dropped values after an activation, and the gradients of the sum of their squares."""

    def drop(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        marked = dropping.mark(x, 0.3, KEY) if marks else x
        y = activation(marked)
        y = dropping.drop_marked(y, marked, 0.3, KEY) if marks else dropping.dropout(y, 0.3, KEY)
        return (y.astype(jnp.float32) ** 2).sum(), y

    grads, y = jax.grad(drop, has_aux=True)(x)
    return y, grads


GELUS = {
    kind: functools.partial(layers.gelu, kind=kind)
    for kind in ("gelu_tanh", "gelu_erf", "gelu_quick")
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*GELUS, "silu"])
def test_marks_before_an_activation_are_dropout_after_it(name, dtype) -> None:
    """Equal masks, values and gradients, also for values that are far from zero."""
    activation = GELUS.get(name, jax.nn.silu)
    x = np.random.default_rng(0).normal(size=(8, 16, 32)) * 10.0 ** np.arange(-2, 6)[:, None, None]
    x = jnp.asarray(x, dtype)
    expected = dropped(x, activation=activation, marks=False)
    found = dropped(x, activation=activation, marks=True)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_array_equal(np.asarray(ours, "f4"), np.asarray(theirs, "f4"))
    assert 0.2 < (np.asarray(found[0], "f4") == 0)[:3].mean() < 0.4


def test_values_that_are_not_numbers_are_not_dropped_by_marks() -> None:
    x = jnp.full((4, 64), jnp.nan)
    y, _ = dropped(x, activation=GELUS["gelu_tanh"], marks=True)
    assert 0.4 < np.isnan(y).mean() < 1


@pytest.mark.parametrize("mlp", ["plain", "swiglu"])
def test_hidden_masks_are_not_drawn_again_in_the_backward_pass(mlp) -> None:
    """The forward pass draws two masks, and the backward pass only that of the output again."""
    module = layers.Mlp(tiny.options(dropout=0.5, mlp=mlp).block(), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(module)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        run = checkpointed(
            lambda x, params: (nnx.merge(graphdef, params)(x, key=KEY), None), "lean"
        )
        return run(x, params)[0].sum()

    program = jax.make_jaxpr(jax.grad(loss))(params, jnp.ones((2, 7, 32)))
    drawn = re.findall(r"random_bits\[", str(program))
    assert len(drawn) == 3
