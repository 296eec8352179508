"""The convolutional stem of the hybrid: a ResNet with weight standardisation and GroupNorm.

Post-activation bottlenecks, as in the original hybrid; shapes are (B, height, width, channels).
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers import Dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class StemOptions:
    """Depth and width of the stem; the root alone strides 4, every stage after the first 2."""

    num_layers: tuple[int, ...] = ()  # bottlenecks of each stage; none: the root alone
    root_width: int = 64
    std_eps: float = 1e-5  # weight standardisation: added to the standard deviation
    norm_eps: float = 1e-6  # GroupNorm

    @property
    def stride(self) -> int:
        return 4 * 2 ** max(len(self.num_layers) - 1, 0)

    @property
    def out_channels(self) -> int:
        stages = len(self.num_layers)
        return self.root_width * 2 ** (stages - 1) * 4 if stages else self.root_width


class Stem(nnx.Module):
    """Root (7x7/2, norm, ReLU, max-pool 3x3/2), then stages `block1`, `block2`, ..."""

    def __init__(
        self, options: StemOptions, *, channels: int, dtype: Dtype, rngs: nnx.Rngs
    ) -> None:
        width = options.root_width
        if width % 32:
            raise ValueError(f"the stem's root width {width} does not divide into 32 norm groups")
        self.options = options
        self.root = ConvNorm(options, channels, width, kernel=7, stride=2, dtype=dtype, rngs=rngs)
        channels = width
        for i, depth in enumerate(options.num_layers):
            features, stride = width * 2**i, 2 if i else 1
            stage = Stage(options, channels, features, depth, stride, dtype=dtype, rngs=rngs)
            setattr(self, f"block{i + 1}", stage)
            channels = features * 4

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.root(x))
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2), padding="SAME")
        for i in range(len(self.options.num_layers)):
            x = getattr(self, f"block{i + 1}")(x)
        return x


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
        for i in range(depth):
            unit = Bottleneck(
                options, channels, features, 1 if i else stride, dtype=dtype, rngs=rngs
            )
            setattr(self, f"unit{i + 1}", unit)
            channels = features * 4

    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth):
            x = getattr(self, f"unit{i + 1}")(x)
        return x


class Bottleneck(nnx.Module):
    """1x1, 3x3 with the stride, 1x1 to four times the features; ReLU of the sum."""

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
        conv = lambda *args, **kw: ConvNorm(options, *args, dtype=dtype, rngs=rngs, **kw)  # noqa: E731
        self.projects = channels != features * 4 or stride != 1
        if self.projects:
            self.proj = conv(channels, features * 4, kernel=1, stride=stride)
        self.conv1 = conv(channels, features, kernel=1)
        self.conv2 = conv(features, features, kernel=3, stride=stride)
        # A zero scale makes every residual unit start as the identity.
        self.conv3 = conv(features, features * 4, kernel=1, zero_scale=True)

    def __call__(self, x: jax.Array) -> jax.Array:
        residual = self.proj(x) if self.projects else x
        y = jax.nn.relu(self.conv1(x))
        y = jax.nn.relu(self.conv2(y))
        return jax.nn.relu(residual + self.conv3(y))


class ConvNorm(nnx.Module):
    """Weight-standardised convolution without bias, SAME padding, then GroupNorm of 32 groups."""

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
        self.stride, self.std_eps, self.dtype = stride, options.std_eps, dtype
        shape = (kernel, kernel, channels, features)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        initial = nnx.initializers.zeros if zero_scale else nnx.initializers.ones
        self.norm = nnx.GroupNorm(
            features,
            num_groups=32,
            epsilon=options.norm_eps,
            scale_init=initial,
            dtype=jnp.dtype(dtype),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.dtype)
        kernel = standardize(self.kernel[...], self.std_eps).astype(dtype)
        x = jax.lax.conv_general_dilated(
            x.astype(dtype),
            kernel,
            window_strides=(self.stride, self.stride),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return self.norm(x)


def standardize(kernel: jax.Array, eps: float) -> jax.Array:
    """(w - mean) / (std + eps) over all but the output channel, in float32."""
    axes = (0, 1, 2)
    kernel = kernel - kernel.mean(axes, keepdims=True)
    return kernel / (kernel.std(axes, keepdims=True) + eps)
