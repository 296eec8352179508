"""ResNets with weight standardisation and GroupNorm: the stem of the hybrids, the body of BiT.

Bottlenecks are post-activation as in the hybrids and big_vision's `bit`, or pre-activation as in
BiT ("Big Transfer", arXiv 1912.11370). All arrays are (B, height, width, channels).
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import limits
from vit_jax.models.convolution import convolve
from vit_jax.models.layers import Dtype
from vit_jax.models.normalisation import GroupNorm
from vit_jax.models.pooling import max_pool


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemOptions:
    """Sizes and numerics. The root has stride 4, each stage after the first has stride 2.

    The defaults are those of vit_jax's hybrids. Raises ValueError if the sizes do not fit.
    """

    num_layers: tuple[int, ...] = ()  # bottlenecks of each stage; (): the root alone
    root_width: int = 64
    widths: tuple[int, ...] = ()  # output channels of each stage; (): 4 root_width, then doubling
    groups: int = 32  # number of groups in every GroupNorm
    preactivation: bool = False  # norm and ReLU before the convolutions
    std_eps: float = 1e-5  # epsilon of the weight standardisation
    std_eps_in: Literal["std", "variance"] = "std"  # what std_eps is added to
    norm_eps: float = 1e-6  # epsilon of GroupNorm
    padding: Literal["same", "explicit"] = "same"  # explicit: (kernel - 1) / 2 on every side
    pool_padding: Literal["zero", "lowest"] = "lowest"  # padding of the root's max-pool

    def __post_init__(self) -> None:
        limits.check(self)
        if not (self.groups and self.root_width):
            raise ValueError("root_width and groups of a ResNet must be positive")
        if self.widths and len(self.widths) != len(self.num_layers):
            raise ValueError(
                f"widths is {self.widths}: give one for each of {len(self.num_layers)} stages"
            )
        normed = (() if self.preactivation else (self.root_width,)) + self.stage_widths
        for width in normed + tuple(bottleneck_width(w) for w in self.stage_widths):
            if width % self.groups:
                raise ValueError(f"{width} channels do not divide into {self.groups} norm groups")

    @property
    def stride(self) -> int:
        return 4 * 2 ** max(len(self.num_layers) - 1, 0)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        stages = range(len(self.num_layers))
        return self.widths or tuple(self.root_width * 4 * 2**i for i in stages)

    @property
    def out_channels(self) -> int:
        return self.stage_widths[-1] if self.num_layers else self.root_width


class Stem(nnx.Module):
    """Root (7x7/2, norm, ReLU, max-pool 3x3/2), then stages `block1`, `block2`, ...

    With pre-activation the root has no norm and ReLU; both follow the last stage instead.
    """

    def __init__(
        self, options: StemOptions, *, channels: int, dtype: Dtype, rngs: nnx.Rngs
    ) -> None:
        self.options = options
        width = options.root_width
        root = StdConv if options.preactivation else ConvNorm
        self.root = root(options, channels, width, kernel=7, stride=2, dtype=dtype, rngs=rngs)
        for i, features in enumerate(options.stage_widths):
            stride = 2 if i else 1
            stage = Stage(
                options, width, features, options.num_layers[i], stride, dtype=dtype, rngs=rngs
            )
            setattr(self, f"block{i + 1}", stage)
            width = features
        if options.preactivation:
            self.norm = group_norm(options, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.root(x)
        x = x if self.options.preactivation else jax.nn.relu(x)
        x = self._pool(x)
        for i in range(len(self.options.num_layers)):
            x = getattr(self, f"block{i + 1}")(x)
        return jax.nn.relu(self.norm(x)) if self.options.preactivation else x

    def _pool(self, x: jax.Array) -> jax.Array:
        window, strides = (3, 3), (2, 2)
        if self.options.padding == "same":
            pads = jax.lax.padtype_to_pads(x.shape[1:3], window, strides, "SAME")
        else:
            pads = [(1, 1), (1, 1)]
        if self.options.pool_padding == "zero":
            x, pads = jnp.pad(x, ((0, 0), *pads, (0, 0))), [(0, 0), (0, 0)]
        return max_pool(x, 3, stride=2, pads=pads)


class Stage(nnx.Module):
    """`depth` bottlenecks `unit1`, `unit2`, ...; the first one strides and projects."""

    def __init__(
        self,
        options: StemOptions,
        channels: int,
        features: int,
        depth: int,
        stride: int,
        *,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.depth = depth
        create = PreactivationBottleneck if options.preactivation else Bottleneck
        for i in range(depth):
            unit = create(options, channels, features, 1 if i else stride, dtype=dtype, rngs=rngs)
            setattr(self, f"unit{i + 1}", unit)
            channels = features

    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = getattr(self, f"unit{i + 1}")(x)
        return x


class Unit(nnx.Module):
    """The layers of a bottleneck: 1x1, 3x3 with the stride, 1x1 to all features, each with a norm.

    Each norm is part of its convolution; with pre-activation, it comes before the convolution.
    """

    conv1: "StdConv"
    conv2: "StdConv"
    conv3: "StdConv"
    norm1: GroupNorm  # norm1 to norm3: only with pre-activation
    norm2: GroupNorm
    norm3: GroupNorm

    def __init__(
        self,
        options: StemOptions,
        channels: int,
        features: int,
        stride: int,
        *,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ) -> None:
        create = functools.partial(
            StdConv if options.preactivation else ConvNorm, options, dtype=dtype, rngs=rngs
        )
        middle = bottleneck_width(features)
        self.projects = channels != features or stride != 1
        if self.projects:
            self.proj = create(channels, features, kernel=1, stride=stride)
        # A zero scale makes every residual unit start as the identity.
        last: dict[str, Any] = {} if options.preactivation else {"zero_scale": True}
        layers: tuple[tuple[int, int, dict[str, Any]], ...] = (
            (channels, middle, {"kernel": 1}),
            (middle, middle, {"kernel": 3, "stride": stride}),
            (middle, features, {"kernel": 1, **last}),
        )
        for i, (inputs, outputs, more) in enumerate(layers, 1):
            if options.preactivation:
                setattr(self, f"norm{i}", group_norm(options, inputs, dtype=dtype, rngs=rngs))
            setattr(self, f"conv{i}", create(inputs, outputs, **more))


class Bottleneck(Unit):
    """Norm after each convolution, ReLU after the sum."""

    def __call__(self, x: jax.Array) -> jax.Array:
        residual = self.proj(x) if self.projects else x
        y = jax.nn.relu(self.conv1(x))
        y = jax.nn.relu(self.conv2(y))
        return jax.nn.relu(residual + self.conv3(y))


class PreactivationBottleneck(Unit):
    """Norm and ReLU before each convolution, no ReLU after the sum."""

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.norm1(x))
        residual = self.proj(y) if self.projects else x
        y = jax.nn.relu(self.norm2(self.conv1(y)))
        y = jax.nn.relu(self.norm3(self.conv2(y)))
        return self.conv3(y) + residual


class StdConv(nnx.Module):
    """Weight-standardised convolution without bias."""

    kernel_dtype = jnp.dtype("float32")  # it is standardised before it is rounded

    def __init__(
        self,
        options: StemOptions,
        channels: int,
        features: int,
        *,
        kernel: int,
        stride: int = 1,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ) -> None:
        self.options, self.stride, self.dtype = options, stride, dtype
        shape = (kernel, kernel, channels, features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))

    def __call__(self, x: jax.Array) -> jax.Array:
        options, dtype, kernel = self.options, jnp.dtype(self.dtype), self.standardized
        pad = (kernel.shape[0] - 1) // 2
        return convolve(
            x.astype(dtype),
            kernel.astype(dtype),
            stride=self.stride,
            padding="SAME" if options.padding == "same" else [(pad, pad)] * 2,
        )

    @property
    def standardized(self) -> jax.Array:
        """The kernel (height, width, channels, features) that it multiplies with."""
        options = self.options
        return standardize(self.kernel[...], eps=options.std_eps, eps_in=options.std_eps_in)


class ConvNorm(StdConv):
    """Weight-standardised convolution, then GroupNorm."""

    def __init__(
        self,
        options: StemOptions,
        channels: int,
        features: int,
        *,
        kernel: int,
        stride: int = 1,
        zero_scale: bool = False,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            options, channels, features, kernel=kernel, stride=stride, dtype=dtype, rngs=rngs
        )
        self.norm = group_norm(options, features, zero_scale=zero_scale, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.norm(super().__call__(x))


def group_norm(
    options: StemOptions,
    features: int,
    *,
    zero_scale: bool = False,
    dtype: Dtype,
    rngs: nnx.Rngs,
) -> GroupNorm:
    """GroupNorm with an output of the computation's dtype."""
    return GroupNorm(
        features,
        num_groups=options.groups,
        epsilon=options.norm_eps,
        scale_init=nnx.initializers.zeros if zero_scale else nnx.initializers.ones,
        dtype=jnp.dtype(dtype),
        rngs=rngs,
    )


def standardize(kernel: jax.Array, *, eps: float, eps_in: Literal["std", "variance"]) -> jax.Array:
    """(w - mean) / std of each output channel, in float32; kernel (h, w, C, D)."""
    axes = (0, 1, 2)
    kernel = kernel - kernel.mean(axes, keepdims=True)
    variance = jnp.square(kernel).mean(axes, keepdims=True)
    if eps_in == "variance":
        return kernel * jax.lax.rsqrt(variance + eps)
    return kernel / (jnp.sqrt(variance) + eps)


def bottleneck_width(features: int) -> int:
    """A quarter of a stage's channels, rounded to a multiple of 8 that is at least 90% of it."""
    quarter = features / 4
    rounded = max(8, int(quarter + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * quarter else rounded
