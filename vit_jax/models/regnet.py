"""RegNetY: a convolutional network with squeeze-and-excitation, DeiT's teacher.

"Designing Network Design Spaces" (arXiv 2003.13678). It takes images of any size. Shapes: B batch,
h and w rows and columns of features, C channels, K classes.
"""

import dataclasses
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import fitting, limits
from vit_jax.models.batch_norm import ConvNorm
from vit_jax.models.model import ModelOptions
from vit_jax.models.staged import StagedNetwork

_STEM_STRIDE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNetOptions(ModelOptions):
    """A RegNetY, which takes images of any size."""

    num_classes: int = 1000  # 0: no head, the features are the output
    stem_width: int = 32
    widths: tuple[int, ...] = (224, 448, 1232, 3024)  # channels of each stage
    depths: tuple[int, ...] = (2, 4, 11, 1)  # blocks of each stage
    group_width: int = 112  # channels of each group of the 3x3 convolutions; at most all
    squeeze: float = 0.25  # channels between squeeze and excitation, per input channel of a block

    def __post_init__(self) -> None:
        limits.check(self)
        if min(*self.image_size, self.channels, self.stem_width, self.group_width) < 1:
            raise ValueError(
                f"image_size {self.image_size}, channels {self.channels}, stem_width"
                f" {self.stem_width} and group_width {self.group_width} must be positive"
            )
        if len(self.widths) != len(self.depths) or not self.depths:
            raise ValueError(
                f"widths {self.widths} and depths {self.depths} must have one number for each stage"
            )
        narrow = [min(self.group_width, width) for width in self.widths]
        if min(*self.depths, *self.widths) < 1 or any(map(operator.mod, self.widths, narrow)):
            raise ValueError(
                f"widths {self.widths} must be multiples of group_width {self.group_width} or"
                f" smaller, and depths {self.depths} positive"
            )
        if not 0 < self.squeeze <= 1:
            raise ValueError(f"squeeze is {self.squeeze}: it must be in (0, 1]")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features before pooling."""
        stride = _STEM_STRIDE * 2 ** len(self.depths)
        return -(-self.image_size[0] // stride), -(-self.image_size[1] // stride)

    @property
    def feature_size(self) -> int:
        return self.widths[-1]


class RegNet(StagedNetwork):
    """A RegNetY. `model(images)` returns logits, `model.features(images)` the input of the head."""

    def __init__(self, options: RegNetOptions, *, rngs: nnx.Rngs) -> None:
        stem = ConvNorm(
            (3, options.channels, options.stem_width),
            stride=_STEM_STRIDE,
            dtype=options.dtype,
            rngs=rngs,
        )
        stages, before = [], options.stem_width
        for width, depth in zip(options.widths, options.depths, strict=True):
            blocks = []
            for block in range(depth):
                stride = 1 if block else 2
                blocks.append(Block(before, width, stride=stride, options=options, rngs=rngs))
                before = width
            stages.append(blocks)
        super().__init__(options, stem=stem, stages=stages, rngs=rngs)


class Block(nnx.Module):
    """1x1, grouped 3x3, squeeze-and-excitation, 1x1; then the residual is added."""

    def __init__(
        self, before: int, width: int, *, stride: int, options: RegNetOptions, rngs: nnx.Rngs
    ) -> None:
        common: dict[str, Any] = {"dtype": options.dtype, "rngs": rngs}
        self.conv1 = ConvNorm((1, before, width), **common)
        grouped = min(options.group_width, width)
        self.conv2 = ConvNorm(
            (3, grouped, width),
            stride=stride,
            groups=width // grouped,
            **common,
        )
        squeezed = round(before * options.squeeze)
        dtype = jnp.dtype(options.dtype)
        self.reduce = nnx.Linear(width, squeezed, dtype=dtype, rngs=rngs)
        self.expand = nnx.Linear(squeezed, width, dtype=dtype, rngs=rngs)
        self.conv3 = ConvNorm((1, width, width), **common)
        if stride != 1 or before != width:
            self.proj = ConvNorm((1, before, width), stride=stride, **common)

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        """(B, h, w, C) to (B, h', w', width)."""
        residual = self.proj(x, training=training) if hasattr(self, "proj") else x
        x = jax.nn.relu(self.conv1(x, training=training))
        x = jax.nn.relu(self.conv2(x, training=training))
        mean = x.mean(axis=(1, 2), keepdims=True)
        x = x * jax.nn.sigmoid(self.expand(jax.nn.relu(self.reduce(mean))))
        return jax.nn.relu(self.conv3(x, training=training) + residual)


FITTING = fitting.Fitting(resize={"stem/kernel": fitting.fit_channels}.get)

# Published models, by billions of multiplications.
NAMES: dict[str, dict[str, Any]] = {"RegNetY-160": {}}
