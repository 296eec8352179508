"""BiT: a ResNet alone as the model, with global average pooling and a linear head.

"Big Transfer (BiT): General Visual Representation Learning" (arXiv 1912.11370). The body is the
`Stem` of the hybrids; its options make it BiT's ResNet-v2 (the default here) or the ResNet-v1 of
big_vision's `bit`. It is fully convolutional, so it takes images of any size. Shapes: B batch,
K classes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import fitting, heads, limits
from vit_jax.models.model import Model, ModelOptions
from vit_jax.models.preprocessing import check_images
from vit_jax.models.resnet import Stem, StemOptions

# The numerics of the paper's code. Use `dataclasses.replace` to make it of other sizes.
RESNET_V2 = StemOptions(
    num_layers=(3, 4, 6, 3),
    preactivation=True,
    std_eps=1e-10,
    std_eps_in="variance",
    norm_eps=1e-5,
    padding="explicit",
    pool_padding="lowest",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BiTOptions(ModelOptions):
    """A BiT ResNet, which takes images of any size."""

    num_classes: int = 1000  # 0: no head, the features are the output
    stem: StemOptions = RESNET_V2
    head_bias: float = 0.0

    def __post_init__(self) -> None:
        limits.check(self)
        if min(*self.image_size, self.channels) < 1:
            raise ValueError(f"image_size {self.image_size} and channels must be positive")
        if not self.stem.num_layers or min(self.stem.num_layers) < 1:
            raise ValueError(
                f"stem.num_layers is {self.stem.num_layers}: give at least one unit for each stage"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features before pooling."""
        height, width = self.image_size
        return -(-height // self.stem.stride), -(-width // self.stem.stride)

    @property
    def load_arguments(self) -> dict[str, Any]:
        return {"grid": self.grid}

    @property
    def feature_size(self) -> int:
        return self.stem.out_channels


class BiT(Model):
    """A ResNet. `model(images)` returns logits, `model.features(images)` the input of the head."""

    def __init__(self, options: BiTOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.stem = Stem(options.stem, channels=options.channels, dtype=options.dtype, rngs=rngs)
        if options.num_classes:
            self.head = heads.linear_head(options.feature_size, options.num_classes,
                                          bias=options.head_bias, rngs=rngs)  # fmt: skip

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32."""
        del key  # there is no dropout, but every model takes a key
        return self.encode(images).astype(jnp.float32).mean(axis=(1, 2))

    def encode(self, images: jax.Array) -> jax.Array:
        """Features before pooling: (B, height / stride, width / stride, `options.feature_size`)."""
        check_images(images, channels=self.options.channels)
        return self.stem(images.astype(jnp.dtype(self.options.dtype)))

    @property
    def patch_kernel(self) -> jax.Array:
        return self.stem.root.standardized

    def grid_features(self, images: jax.Array) -> jax.Array:
        return self.encode(images).astype(jnp.float32)


FITTING = fitting.Fitting(resize={"stem/root/kernel": fitting.fit_channels}.get)

# Published models: bottlenecks of each stage, factor of the width
_SIZES = {
    "R50x1": ((3, 4, 6, 3), 1),
    "R50x2": ((3, 4, 6, 3), 2),
    "R50x3": ((3, 4, 6, 3), 3),
    "R101x1": ((3, 4, 23, 3), 1),
    "R101x3": ((3, 4, 23, 3), 3),
    "R152x1": ((3, 8, 36, 3), 1),
    "R152x2": ((3, 8, 36, 3), 2),
    "R152x4": ((3, 8, 36, 3), 4),
}
NAMES = {
    name: {"stem": dataclasses.replace(RESNET_V2, num_layers=layers, root_width=64 * factor)}
    for name, (layers, factor) in _SIZES.items()
}
