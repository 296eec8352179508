"""ResNet with batch norm: ResNet-18 to ResNet-152, as torchvision and timm have them.

"Deep Residual Learning for Image Recognition" (arXiv 1512.03385). The stride of a bottleneck is in
its 3x3 convolution, as in torchvision (ResNet v1.5). It takes images of any size. Shapes: B batch,
h and w rows and columns of features, C channels, K classes.
"""

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx

from vit_jax.models import fitting, limits
from vit_jax.models.batch_norm import ConvNorm
from vit_jax.models.model import ModelOptions
from vit_jax.models.pooling import max_pool
from vit_jax.models.staged import StagedNetwork


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetOptions(ModelOptions):
    """A ResNet with batch norm, which takes images of any size."""

    num_classes: int = 1000  # 0: no head, the features are the output
    depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks of each stage
    bottleneck: bool = False  # blocks of 1x1, 3x3 and 1x1 convolutions instead of two 3x3
    width: int = 64  # channels of the first stage (without the bottleneck's factor 4)
    # The first layers. imagenet: 7x7 with stride 2, and max-pooling; cifar: 3x3 with stride 1.
    root: Literal["imagenet", "cifar"] = "imagenet"

    def __post_init__(self) -> None:
        limits.check(self)
        if min(*self.image_size, self.channels, self.width) < 1:
            raise ValueError(
                f"image_size {self.image_size}, channels {self.channels} and width {self.width}"
                " must be positive"
            )
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths is {self.depths}: give at least one block for each stage")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features before pooling."""
        stride = (4 if self.root == "imagenet" else 1) * 2 ** (len(self.depths) - 1)
        return -(-self.image_size[0] // stride), -(-self.image_size[1] // stride)

    @property
    def expansion(self) -> int:
        """Outputs of a block per channel of its 3x3 convolutions."""
        return 4 if self.bottleneck else 1

    @property
    def feature_size(self) -> int:
        return self.width * 2 ** (len(self.depths) - 1) * self.expansion


class ResNet(StagedNetwork):
    """A ResNet. `model(images)` returns logits, `model.features(images)` the input of the head."""

    def __init__(self, options: ResNetOptions, *, rngs: nnx.Rngs) -> None:
        side, stride = (7, 2) if options.root == "imagenet" else (3, 1)
        stem = ConvNorm(
            (side, options.channels, options.width), stride=stride, dtype=options.dtype, rngs=rngs
        )
        stages, before = [], options.width
        for stage, depth in enumerate(options.depths):
            blocks, width = [], options.width * 2**stage
            for block in range(depth):
                stride = 2 if stage and not block else 1
                blocks.append(Block(before, width, stride=stride, options=options, rngs=rngs))
                before = width * options.expansion
            stages.append(blocks)
        super().__init__(options, stem=stem, stages=stages, rngs=rngs)

    def after_stem(self, x: jax.Array) -> jax.Array:
        if self.options.root == "cifar":
            return x
        return max_pool(x, 3, stride=2, pads=[(1, 1), (1, 1)])


class Block(nnx.Module):
    """Two 3x3 convolutions, or a bottleneck of 1x1, 3x3 and 1x1; then the residual is added."""

    def __init__(
        self, before: int, width: int, *, stride: int, options: ResNetOptions, rngs: nnx.Rngs
    ) -> None:
        common: dict[str, Any] = {"dtype": options.dtype, "rngs": rngs}
        outputs = width * options.expansion
        if options.bottleneck:
            self.conv1 = ConvNorm((1, before, width), **common)
            self.conv2 = ConvNorm((3, width, width), stride=stride, **common)
            self.conv3 = ConvNorm((1, width, outputs), **common)
        else:
            self.conv1 = ConvNorm((3, before, width), stride=stride, **common)
            self.conv2 = ConvNorm((3, width, width), **common)
        if stride != 1 or before != outputs:
            self.proj = ConvNorm((1, before, outputs), stride=stride, **common)
        self.bottleneck = options.bottleneck

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        """(B, h, w, C) to (B, h', w', outputs)."""
        residual = self.proj(x, training=training) if hasattr(self, "proj") else x
        x = jax.nn.relu(self.conv1(x, training=training))
        x = self.conv2(x, training=training)
        if self.bottleneck:
            x = self.conv3(jax.nn.relu(x), training=training)
        return jax.nn.relu(x + residual)


FITTING = fitting.Fitting(resize={"stem/kernel": fitting.fit_channels}.get)

NAMES: dict[str, dict[str, Any]] = {
    "ResNet-18": {},
    "ResNet-34": {"depths": (3, 4, 6, 3)},
    "ResNet-50": {"depths": (3, 4, 6, 3), "bottleneck": True},
    "ResNet-101": {"depths": (3, 4, 23, 3), "bottleneck": True},
    "ResNet-152": {"depths": (3, 8, 36, 3), "bottleneck": True},
}
