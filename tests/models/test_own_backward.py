"""LayerNorm, GroupNorm, attention and the split of its inputs have their own backward passes.

Their values and gradients are compared with those of the plain form, which autodiff differentiates,
in float64.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.config import MeshConfig
from vit_jax.models import attention, flops, heads, layers, normalisation, zoo
from vit_jax.parallel.mesh import make_mesh


def plain_attention(q: Any, k: Any, v: Any, bias: Any) -> jax.Array:
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    logits = logits if bias is None else logits + bias
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, -1), v)


def rounding_attention(q: Any, k: Any, v: Any, bias: Any) -> jax.Array:
    """The plain form in bfloat16: the softmax is float32, and its weights are rounded."""
    bias = None if bias is None else bias.astype(q.dtype)
    return jax.nn.dot_product_attention(q, k, v, bias, implementation="xla")


def plain_norm(x: Any, scale: Any, bias: Any) -> jax.Array:
    wide = x.astype(scale.dtype)
    normal = (wide - wide.mean(-1, keepdims=True)) / jnp.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    row = (1,) * (x.ndim - 1) + scale.shape
    return (normal * scale.reshape(row) + bias.reshape(row)).astype(x.dtype)


def plain_group_norm(x: Any, scale: Any, bias: Any) -> jax.Array:
    wide = x.astype(scale.dtype).reshape(*x.shape[:-1], GROUPS, -1)
    places = (*range(1, x.ndim - 1), x.ndim)
    mean, variance = wide.mean(places, keepdims=True), wide.var(places, keepdims=True)
    normal = ((wide - mean) / jnp.sqrt(variance + 1e-6)).reshape(x.shape)
    row = (1,) * (x.ndim - 1) + scale.shape
    return (normal * scale.reshape(row) + bias.reshape(row)).astype(x.dtype)


def plain_split(qkv: Any, bias: Any) -> tuple[jax.Array, ...]:
    return tuple(jnp.moveaxis(qkv + bias.astype(qkv.dtype)[None, None], 2, 0))


def gradients(
    function: Any, inputs: list[Any], weights: list[Any], promotion: str = "strict"
) -> list[Any]:
    """The outputs, and the gradients of their sum with these weights, without those of None."""

    def run(inputs: list[Any], weights: list[Any]) -> Any:
        y, backward = jax.vjp(lambda inputs: function(*inputs), inputs)
        return y, backward(weights[0] if isinstance(y, jax.Array) else tuple(weights))

    with jax.numpy_dtype_promotion(promotion):
        found = jax.jit(run)(inputs, weights)
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]


def exact(function: Any, inputs: list[Any], weights: list[Any]) -> list[Any]:
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (inputs, weights))
        return gradients(function, *wide)


def draw(*shape: int, dtype: str = "float32", seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def error(found: Any, true: Any) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


GROUPS = 4
ROWS = 8
# Queries, keys, heads, width of a head, shape of the bias
SIZES: list[Any] = [
    (7, 7, 3, 8, None),
    (1, 150, 2, 64, None),  # a probe
    (5, 9, 2, 120, (ROWS, 1, 5, 9)),  # only 8 columns are left for the sum
    (6, 6, 2, 128, (1, 2, 6, 6)),  # none is left
    (9, 4, 3, 16, (1, 1, 1, 4)),
]


def attention_case(size: Any, dtype: str) -> tuple[list[Any], list[Any]]:
    queries, keys, number, width, bias = size
    q, k, v, weight = (
        draw(ROWS, tokens, number, width, dtype=dtype, seed=seed)
        for seed, tokens in enumerate((queries, keys, keys, queries))
    )
    mask = None if bias is None else draw(*bias, seed=9).at[..., -1].set(-100.0)
    return [q, k, v, mask], [weight]


@pytest.mark.parametrize(("queries", "keys", "heads", "width", "bias"), SIZES)
def test_a_masked_token_makes_numbers_even_and_changes_nothing(
    queries, keys, heads, width, bias
) -> None:
    """The arrays and lengths are those that cuDNN gets; XLA computes with them here."""
    inputs: list[Any] = [
        draw(ROWS, number, heads, width, seed=seed)
        for seed, number in enumerate((queries, keys, keys))
    ]
    inputs.append(None if bias is None else draw(*bias, seed=3))
    weights = [draw(ROWS, queries, heads, width, seed=4)]
    even, odd = (
        gradients(functools.partial(attention.library, kind="xla", even=even), inputs, weights)
        for even in (True, False)
    )
    for found, true in zip(even, odd, strict=True):
        assert error(found, true) < 1e-6


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attention_in_float32_is_the_plain_form(size) -> None:
    case = attention_case(size, "float32")
    found, true = gradients(attention.attend, *case), exact(plain_attention, *case)
    for ours, theirs in zip(found, true, strict=True):
        assert_close(ours, theirs, scaled=2e-6)  # at most 1.1e-6, in jax 0.12


PEAKED = 8.0  # times as long: the softmax is close to choosing one key


@pytest.mark.parametrize(("size", "longer"), [*((s, 1.0) for s in SIZES), (SIZES[0], PEAKED)])
def test_attention_in_bfloat16_is_as_exact_as_the_plain_form(size, longer) -> None:
    case = attention_case(size, "bfloat16")
    case[0][0] *= longer
    parts = (
        gradients(attention.attend, *case),
        gradients(rounding_attention, *case, promotion="standard"),
        exact(plain_attention, *case),
    )
    for ours, plain, true in zip(*parts, strict=True):
        assert error(ours, true) < 1.08 * error(plain, true)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5, 24), (2, 3, 4, 8), (6, 64)], ids=str)
def test_layer_norm_is_the_plain_form(shape, dtype) -> None:
    inputs = [3 + draw(*shape, dtype=dtype), 1 + draw(shape[-1], seed=1), draw(shape[-1], seed=2)]
    weights = [draw(*shape, dtype=dtype, seed=3)]
    ours = lambda *inputs: normalisation.normalise(*inputs, 1e-6)  # noqa: E731
    found, true = gradients(ours, inputs, weights), exact(plain_norm, inputs, weights)
    for one, theirs in zip(found, true, strict=True):
        assert_close(one, theirs, scaled=1e-6 if dtype == "float32" else 2**-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 5, 4, 24), (2, 9, 8), (5, 16)], ids=str)
def test_group_norm_is_the_plain_form(shape, dtype) -> None:
    inputs = [3 + draw(*shape, dtype=dtype), 1 + draw(shape[-1], seed=1), draw(shape[-1], seed=2)]
    weights = [draw(*shape, dtype=dtype, seed=3)]
    ours = lambda *inputs: normalisation.normalise_groups(*inputs, GROUPS, 1e-6)  # noqa: E731
    found, true = gradients(ours, inputs, weights), exact(plain_group_norm, inputs, weights)
    for one, theirs in zip(found, true, strict=True):
        assert_close(one, theirs, scaled=1e-6 if dtype == "float32" else 2**-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_split_of_queries_keys_and_values_is_the_plain_one(dtype) -> None:
    inputs = [draw(2, 9, 3, 2, 4, dtype=dtype), draw(3, 2, 4, seed=1)]
    weights = [draw(2, 9, 2, 4, dtype=dtype, seed=seed) for seed in (2, 3, 4)]
    found, true = gradients(attention.split, inputs, weights), exact(plain_split, inputs, weights)
    for ours, theirs in zip(found, true, strict=True):
        assert_close(ours, theirs, scaled=1e-6 if dtype == "float32" else 2**-8)


OPTIONS: list[Any] = [
    {},
    {"qkv_bias": False, "qk_norm": True},
    {"position": "relative", "dropout": 0.3},
    {"relative_bias": "per_block", "key_bias": False},
    {"attention_dropout": 0.4, "layer_scale": 0.3, "drop_path": 0.5},
]


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_a_block_computes_the_same_whatever_computes_its_attention(changes) -> None:
    x, weight = draw(2, 7, 32), draw(2, 7, 32, seed=1)
    bias = draw(1, 4, 7, 7, seed=2)

    def run(kind: str) -> Any:
        options = tiny.options(**changes, attention=kind).block()
        graphdef, params = nnx.split(tiny.model(**changes).encoder.blocks)
        graphdef = nnx.split(nnx.eval_shape(lambda: layers.Block(options, rngs=nnx.Rngs(0))))[0]
        first = jax.tree.map(lambda p: p[0], params)

        def block(params: Any, x: jax.Array, bias: jax.Array) -> jax.Array:
            key = jax.random.key(3, impl="rbg")
            return nnx.merge(graphdef, params)(x, bias=bias, key=key, drop_rate=0.2)[0]

        return gradients(block, [first, x, bias], [weight])

    for ours, theirs in zip(run("recompute"), run("xla"), strict=True):
        assert_close(ours, theirs, scaled=2e-6, floor=1.0)


def test_patches_apart_from_other_tokens_give_the_same_logits_and_gradients() -> None:
    changes = {"qk_norm": True, "layer_scale": 0.3, "drop_path": 0.5, "registers": 2}
    images, weight = tiny.images(), draw(len(tiny.images()), 5, seed=1)

    def run(kind: str) -> list[Any]:
        graphdef, params = nnx.split(tiny.model(**changes, remat="lean", attention=kind))

        def logits(params: Any) -> jax.Array:
            key = jax.random.key(3, impl="rbg")
            return nnx.merge(graphdef, params)(images, key=key)

        return gradients(logits, [params], [weight])

    for ours, theirs in zip(run("streams"), run("recompute"), strict=True):
        assert_close(ours, theirs, scaled=3e-6, floor=0.1)


@pytest.mark.parametrize("few", [1, 3, 9])
def test_few_tokens_beside_many_are_computed_as_all_together(few: int) -> None:
    """Their products are filled up to the rows of a register of a TPU."""
    together, weight = [draw(2, 160, 2, 8, seed=i) for i in range(3)], draw(2, 160, 2, 8, seed=3)

    def apart(q: Any, k: Any, v: Any) -> jax.Array:
        parts = [(x[:, few:], x[:, :few]) for x in (q, k, v)]
        many, first = attention.attend_streams(*parts)
        return jnp.concatenate([first, many], axis=1)

    expected = exact(functools.partial(plain_attention, bias=None), together, [weight])
    for ours, theirs in zip(gradients(apart, together, [weight]), expected, strict=True):
        assert_close(ours, theirs, scaled=1e-6)
    shapes = str(jax.make_jaxpr(apart)(*together))
    assert (f"f32[2,2,8,{160 - few}]" in shapes) == (few < 8)


@pytest.mark.parametrize("kind", ["recompute", "streams"])
def test_gradients_of_kernels_are_stacked_and_added_before_they_are_cast(kind) -> None:
    """In float32 they would take twice the memory, and twice the bytes between devices."""
    graphdef, params = nnx.split(tiny.model(dtype="bfloat16", attention=kind))

    def loss(params: Any) -> jax.Array:
        return nnx.merge(graphdef, params)(tiny.images()).sum()

    program = str(jax.make_jaxpr(jax.grad(loss))(params))
    for kernel in ("32,48", "48,32", "32,3,4,8", "4,8,32"):
        casts = program.count(f":f32[3,{kernel}] = convert_element_type")
        assert casts == 1, f"the gradients of the kernels ({kernel}) of all layers"
        assert f":f32[{kernel}] = convert_element_type" not in program


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_norm_of_bfloat16_gets_its_sums_from_products_on_a_tpu_only(dtype) -> None:
    norm = lambda x, s, b: normalisation.normalise(x, s, b, 1e-6)  # noqa: E731
    inputs = draw(4, 7, 32, dtype=dtype), draw(32), draw(32, seed=1)

    def products(platform: str) -> int:
        lowered = jax.jit(norm).trace(*inputs).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.dot_general")

    assert products("tpu") == (2 if dtype == "bfloat16" else 0)
    assert products("cpu") == products("cuda") == 0


@pytest.mark.parametrize(
    ("queries", "keys", "unrolled", "fixed"),
    [
        *((197, 197, True, 3), (197, 197, False, 0), (256, 256, True, 0)),
        *((1, 197, True, 0), (65, 65, True, 0)),
    ],
)
def test_a_tpu_keeps_ragged_logits_of_unrolled_blocks_in_the_order_of_their_axes(
    queries, keys, unrolled, fixed
) -> None:
    shapes = [(8, queries, 4, 8), *[(8, keys, 4, 8)] * 2]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    attend = functools.partial(attention.attend, unrolled=unrolled)
    gradients = jax.jit(jax.grad(lambda *x: attend(*x, None).sum(), (0, 1, 2)))

    def count(platform: str, name: str) -> int:
        with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
            lowered = gradients.trace(*inputs).lower(lowering_platforms=(platform,))
        return lowered.as_text().count(name)

    assert count("tpu", "@LayoutConstraint") == fixed
    assert count("tpu", "optimization_barrier") == 1 + (fixed > 0)
    for platform in ("cpu", "cuda"):
        assert count(platform, "@LayoutConstraint") == 0
        assert count(platform, "optimization_barrier") == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_mean_by_a_product_is_the_mean(dtype) -> None:
    x = 3 + draw(5, 7, 48, dtype=dtype)
    found = normalisation.mean_by_product(x, jnp.dtype("float32"))
    assert_close(found, np.asarray(x, np.float64).mean(-1, keepdims=True), scaled=1e-6)


def test_streams_need_a_token_before_the_patches_and_nothing_inside_the_blocks() -> None:
    for changes in (
        {"pool": "gap", "class_token": False},
        {"dropout": 0.1},
        {"position": "relative"},
        {"position_at": "every_block"},
    ):
        with pytest.raises(ValueError, match="attention 'streams' needs a token before"):
            tiny.options(attention="streams", **changes)
    with pytest.raises(ValueError, match="a Swin has patches only"):
        zoo.options("Swin-T", attention="streams")


def test_a_pool_computes_the_same_whatever_computes_its_attention() -> None:
    x, weight = draw(3, 6, 32), draw(3, 32, seed=1)

    def run(kind: str) -> Any:
        options = tiny.options(attention=kind).plain_block()
        pool = heads.AttentionPool(options, rngs=nnx.Rngs(jax.random.key(0, impl="rbg")))
        graphdef, params = nnx.split(pool)
        return gradients(lambda p, x: nnx.merge(graphdef, p)(x), [params, x], [weight])

    for ours, theirs in zip(run("recompute"), run("xla"), strict=True):
        assert_close(ours, theirs, scaled=2e-6, floor=1.0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"layer_scale": 0.1, "relative_bias": "shared", "key_bias": False}, {"qkv_bias": False}],
    ids=str,
)
def test_dots_recomputes_no_product_with_a_kernel(changes) -> None:
    """The attention computes its logits again, whatever the policy is; "lean" projects too."""

    def operations(remat: str) -> int:
        graphdef, params = nnx.split(tiny.model(**changes, remat=remat))
        total = lambda p, x: nnx.merge(graphdef, p)(x).sum()  # noqa: E731
        return flops.of_program(jax.make_jaxpr(jax.grad(total))(params, tiny.images()).jaxpr)

    projections = 3 * 2 * (2 * 7 * 32 * 3 * 32)  # layers, two for a multiply-add
    assert operations("dots") == operations("none")
    assert operations("lean") == operations("dots") + projections
    assert operations("full") > operations("lean")
