"""Batch norm, and convolutions with it: statistics of the batch in training, else running averages.

"Batch Normalization" (arXiv 1502.03167). A batch is the global batch (a micro-batch with
`accumulate`), however it is split over devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from vit_jax.models.convolution import convolve
from vit_jax.models.layers import Dtype

MOMENTUM = 0.1  # weight of the newest batch in the running averages


class Statistic(nnx.Variable):
    """A running average. Training updates it from the batch, without a gradient.

    A forward pass in training assigns the new value to the module, which lives for one step only;
    `statistics` reads it there.
    """


class BatchNorm(nnx.Module):
    """Normalises every channel, then scales and shifts it if `affine`, as PyTorch's BatchNorm."""

    fixed: bool = False  # whether training uses the running averages too; a step may set it

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        if affine:
            self.scale = nnx.Param(jnp.ones(channels))
            self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = Statistic(jnp.zeros(channels))
        self.variance = Statistic(jnp.ones(channels))
        self.eps, self.affine = eps, affine

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        """(..., C) to float32 (..., C). `training` takes the statistics from `x` itself."""
        x = x.astype(jnp.float32)
        of_batch = training and not self.fixed
        mean, variance = self._of_batch(x) if of_batch else (self.mean[...], self.variance[...])
        scale = jax.lax.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.scale[...]
        shift = -mean * scale
        if self.affine:
            shift = shift + self.bias[...]
        return x * _like(scale, x) + _like(shift, x)

    def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The mean and the variance of each channel; the running averages follow them.

        One pass over the batch finds both. Distances from the running mean are small numbers, so
        the difference of the two squares loses few digits.
        """
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        running = jax.lax.stop_gradient(self.mean[...])
        distance = x - _like(running, x)
        offset = distance.mean(axes)
        mean = running + offset
        variance = jnp.maximum((distance * distance).mean(axes) - offset * offset, 0.0)
        # The running variance is that of the population, of which the batch is a sample.
        unbiased = variance * (count / max(count - 1, 1))
        self.mean[...] += MOMENTUM * (jax.lax.stop_gradient(mean) - self.mean[...])
        self.variance[...] += MOMENTUM * (jax.lax.stop_gradient(unbiased) - self.variance[...])
        return mean, variance


def _like(channels: jax.Array, x: jax.Array) -> jax.Array:
    """(C,) with as many axes as x (..., C)."""
    return channels.reshape((1,) * (x.ndim - 1) + (-1,))


class ConvNorm(nnx.Module):
    """A convolution without bias, and a batch norm."""

    def __init__(
        self,
        shape: tuple[int, int, int],  # side of the kernel, inputs of a group, outputs
        *,
        stride: int = 1,
        groups: int = 1,
        dtype: Dtype,
        rngs: nnx.Rngs,
    ) -> None:
        side, inputs, outputs = shape
        init = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
        self.kernel = nnx.Param(init(rngs.params(), (side, side, inputs, outputs)))
        self.norm = BatchNorm(outputs)
        self.stride, self.groups, self.dtype = stride, groups, dtype

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        """(B, h, w, C) to (B, h', w', outputs)."""
        pad = self.kernel.shape[0] // 2
        x = convolve(
            x,
            self.kernel[...].astype(x.dtype),
            stride=self.stride,
            padding=[(pad, pad)] * 2,
            groups=self.groups,
        )
        return self.norm(x, training=training).astype(jnp.dtype(self.dtype))


def statistics(model: nnx.Module) -> dict[str, Any]:
    """The nested dict of a model's running averages, without its parameters; often empty."""
    return nnx.to_pure_dict(nnx.state(model, Statistic))


def without_statistics(params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    """The nested dict of parameters without the running averages."""
    if not statistics:
        return params
    flat, averages = traverse_util.flatten_dict(params), traverse_util.flatten_dict(statistics)
    kept = {path: array for path, array in flat.items() if path not in averages}
    return traverse_util.unflatten_dict(kept)


def with_statistics(params: dict[str, Any], statistics: dict[str, Any]) -> dict[str, Any]:
    """The nested dict of parameters with other running averages."""
    if not statistics:
        return params
    both = traverse_util.flatten_dict(params) | traverse_util.flatten_dict(statistics)
    return traverse_util.unflatten_dict(both)
