"""Convolutions and max pooling have other operations on a CPU, with the same values and gradients.

The truth is the plain operation, which autodiff differentiates.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from vit_jax.models import flops
from vit_jax.models.convolution import convolve
from vit_jax.models.pooling import max_pool

# Height and width of the image, side of the kernel, stride, padding
PRODUCTS: list[Any] = [
    (8, 6, 1, 1, "SAME"),
    (7, 9, 1, 2, "SAME"),
    (7, 9, 1, 3, [(0, 0), (0, 0)]),
    (2, 2, 3, 1, "SAME"),
    (2, 4, 3, 1, [(1, 1), (1, 1)]),
    (1, 1, 3, 1, [(1, 1), (1, 1)]),
    (4, 4, 3, 2, "SAME"),
    (5, 3, 3, 2, [(1, 1), (1, 1)]),
    (9, 8, 7, 2, [(3, 2), (3, 3)]),
    (5, 5, 1, 1, [(1, 1), (0, 0)]),
]
CONVOLUTION: Any = (6, 6, 3, 1, "SAME")
# Height and width, window, stride, padding
POOLS: list[Any] = [
    (8, 8, 3, 2, [(1, 1), (1, 1)]),
    (9, 7, 3, 2, [(0, 1), (1, 0)]),
    (6, 8, 2, 2, [(0, 0), (0, 0)]),
    (5, 6, 3, 1, [(1, 1), (0, 2)]),
    (7, 7, 2, 3, [(0, 0), (0, 0)]),  # it leaves out rows and columns between windows
]


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_gradients(function: Any, *inputs: Any) -> list[np.ndarray]:
    """The output, and the gradients of its sum with random weights."""
    y, backward = jax.vjp(jax.jit(function), *inputs)
    return [np.asarray(leaf) for leaf in (y, *backward(draw(*y.shape, seed=9)))]


def lowered(function: Any, *inputs: Any, platform: str) -> str:
    """The program of the output and its gradients for a platform."""
    run = jax.jit(lambda *inputs: jax.vjp(function, *inputs)[1](function(*inputs)))
    return run.trace(*inputs).lower(lowering_platforms=(platform,)).as_text()


def plain(x: Any, kernel: Any, *, stride: int, padding: Any, groups: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups,
    )  # fmt: skip


@pytest.mark.parametrize("case", [*PRODUCTS, CONVOLUTION])
def test_a_convolution_is_the_same_in_every_form(case):
    height, width, side, stride, padding = case
    x, kernel = draw(3, height, width, 5), draw(side, side, 5, 6, seed=1)
    options = {"stride": stride, "padding": padding}
    found = with_gradients(functools.partial(convolve, **options), x, kernel)
    truth = with_gradients(functools.partial(plain, **options), x, kernel)
    for ours, theirs in zip(found, truth, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", PRODUCTS)
def test_a_small_image_or_kernel_is_a_product_on_a_cpu_only(case):
    height, width, side, stride, padding = case
    inputs = draw(3, height, width, 5), draw(side, side, 5, 6)
    run = functools.partial(convolve, stride=stride, padding=padding)
    text = lowered(run, *inputs, platform="cpu")
    assert "dot_general" in text
    strided = side == 1 < stride  # only the gradients are products
    assert text.count("stablehlo.convolution") == (1 if strided else 0)
    for platform in ("tpu", "cuda"):
        text = lowered(run, *inputs, platform=platform)
        assert "stablehlo.convolution" in text
        assert "dot_general" not in text


def test_another_convolution_is_one_everywhere():
    height, width, side, stride, padding = CONVOLUTION
    run = functools.partial(convolve, stride=stride, padding=padding)
    text = lowered(run, draw(3, height, width, 5), draw(side, side, 5, 6), platform="cpu")
    assert "stablehlo.convolution" in text
    assert "dot_general" not in text


def test_grouped_convolutions_are_left_alone():
    x, kernel = draw(2, 3, 3, 4), draw(1, 1, 2, 6, seed=1)
    for ours, theirs in zip(
        with_gradients(functools.partial(convolve, groups=2), x, kernel),
        with_gradients(functools.partial(plain, stride=1, padding="SAME", groups=2), x, kernel),
        strict=True,
    ):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_operations_of_a_product_count_once():
    x, kernel = draw(2, 8, 8, 5), draw(1, 1, 5, 6)
    program = jax.make_jaxpr(convolve)(x, kernel)
    assert flops.of_program(program.jaxpr) == 2 * (2 * 8 * 8 * 6) * 5


@pytest.mark.parametrize(("height", "width", "window", "stride", "pads"), POOLS)
def test_pooling_is_the_same_in_both_forms_with_equal_values_too(
    height, width, window, stride, pads
):
    values = np.random.default_rng(0).integers(-2, 3, (2, height, width, 7)).astype(np.float32)
    pooled = functools.partial(
        nnx.max_pool,
        window_shape=(window, window),
        strides=(stride, stride),
        padding=tuple(pads),
    )
    ours = functools.partial(max_pool, window=window, stride=stride, pads=pads)
    for found, truth in zip(
        with_gradients(ours, values), with_gradients(pooled, values), strict=True
    ):
        assert_close(found, truth, rtol=1e-6, atol=1e-6)
    assert "select_and_scatter" not in lowered(ours, values, platform="cpu")
    assert "select_and_scatter" in lowered(ours, values, platform="tpu")
