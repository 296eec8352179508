"""Properties of the ResNets of hybrids and of BiT."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.checkpoints import load
from vit_jax.models.bit import RESNET_V2, BiT, BiTOptions
from vit_jax.models.resnet import Stem, StemOptions, bottleneck_width, standardize

TINY = dataclasses.replace(RESNET_V2, num_layers=(1, 2), root_width=8, groups=4)


@pytest.mark.parametrize("preactivation", [True, False])
@pytest.mark.parametrize("padding", ["explicit", "same"])
def test_images_of_any_size_have_features(padding, preactivation):
    stem = dataclasses.replace(TINY, padding=padding, preactivation=preactivation)
    options = BiTOptions(stem=stem, num_classes=3)

    def run(method, shape):
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        create_and_run = lambda x: getattr(BiT(options, rngs=nnx.Rngs(0)), method)(x)  # noqa: E731
        return jax.eval_shape(create_and_run, images).shape

    for height, width in ((64, 64), (45, 61)):
        assert run("encode", (2, height, width, 3)) == (2, -(-height // 8), 8, 64)
        assert run("__call__", (2, height, width, 3)) == (2, 3)
    with pytest.raises(ValueError, match="the model takes .batch, height, width, 3."):
        run("encode", (2, 64, 64, 1))


def test_standardized_kernels_have_no_mean_and_unit_variance():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 8, 4)) * 5 + 2
    for where in ("std", "variance"):
        out = np.asarray(standardize(kernel, eps=1e-10, eps_in=where))
        assert_close(out.mean((0, 1, 2)), 0, atol=1e-6)
        assert_close(out.var((0, 1, 2)), 1, atol=1e-5)
    constant = jnp.full((1, 1, 1, 1), 3.0)
    assert standardize(constant, eps=1e-10, eps_in="variance") == 0


def test_the_epsilon_is_added_to_the_deviation_or_to_the_variance():
    kernel = np.array([1.0, -1.0], np.float32).reshape(1, 1, 2, 1)  # standard deviation 1
    for eps_in, divisor in (("std", 1.5), ("variance", math.sqrt(1.5))):
        out = standardize(jnp.asarray(kernel), eps=0.5, eps_in=eps_in)
        assert_close(out, kernel / divisor, rtol=1e-6)


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_the_stride_is_that_of_the_features(stages):
    stem = StemOptions(num_layers=(1,) * stages, root_width=8, groups=4)
    assert stem.stride == (4, 4, 8, 16)[stages]
    run = lambda x: Stem(stem, channels=3, dtype="float32", rngs=nnx.Rngs(0))(x)  # noqa: E731
    shape = jax.eval_shape(run, jnp.zeros((1, 64, 32, 3))).shape
    assert shape == (1, 64 // stem.stride, 32 // stem.stride, stem.out_channels)


def test_features_are_a_float32_mean():
    options = BiTOptions(stem=TINY, num_classes=0, dtype="bfloat16")
    model = load.assemble(options, tiny.params(options))
    images = jax.random.normal(jax.random.key(0), (2, 48, 32, 3))
    features, encoded = jax.jit(lambda m, x: (m.features(x), m.encode(x)))(model, images)
    assert (features.dtype, encoded.dtype) == (jnp.float32, jnp.bfloat16)
    assert_close(features, np.asarray(encoded, np.float32).mean((1, 2)), rtol=1e-5)


def test_the_pooling_pads_with_zero_or_with_nothing():
    images = -jnp.ones((1, 16, 16, 8))
    lowest = TINY
    zero = dataclasses.replace(TINY, pool_padding="zero")
    for kind, border in ((zero, 0.0), (lowest, -1.0)):
        options = BiTOptions(stem=kind)
        stem = nnx.eval_shape(lambda o=options: BiT(o, rngs=nnx.Rngs(0))).stem
        pooled = stem._pool(images)
        assert pooled.shape == (1, 8, 8, 8)
        assert pooled[0, 0, 0, 0] == border and pooled[0, 4, 4, 0] == -1


def test_a_new_residual_unit_is_the_identity():
    """At the start of training, only the first unit of a stage changes its input."""

    def features(units):
        stem = StemOptions(num_layers=(units,), root_width=8, groups=4)
        model = BiT(BiTOptions(stem=stem, num_classes=0), rngs=nnx.Rngs(0))
        return jax.jit(lambda model, x: model.encode(x))(model, images)

    images = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    one = features(1)
    assert np.abs(one).max() > 0.1
    np.testing.assert_array_equal(features(3), one)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="48 channels do not divide into 32 norm groups"):
        StemOptions(num_layers=(1,), root_width=48)
    with pytest.raises(ValueError, match="give one for each of 2 stages"):
        dataclasses.replace(TINY, widths=(32,))
    with pytest.raises(ValueError, match="give at least one unit for each stage"):
        BiTOptions(stem=StemOptions())
    assert [bottleneck_width(w) for w in (32, 256, 96, 20, 44)] == [8, 64, 24, 8, 16]
