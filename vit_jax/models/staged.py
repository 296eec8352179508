"""A convolutional network of stages with batch norm: the body that RegNet and ResNet share.

Shapes: B batch, h and w rows and columns of features, C channels, K classes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import heads
from vit_jax.models.batch_norm import ConvNorm
from vit_jax.models.blocks import in_order, numbered
from vit_jax.models.model import Model
from vit_jax.models.preprocessing import check_images


class StagedNetwork(Model):
    """A stem, stages of blocks, the mean over all places, and a linear head."""

    def __init__(
        self, options: Any, *, stem: ConvNorm, stages: Sequence[Sequence[Any]], rngs: nnx.Rngs
    ) -> None:
        self.options = options
        self.stem = stem
        for number, blocks in enumerate(stages, 1):
            setattr(self, f"stage{number}", numbered(blocks))
        if options.num_classes:
            sizes = (options.feature_size, options.num_classes)
            self.head = heads.linear_head(*sizes, bias=0.0, rngs=rngs)

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32; a `key` means training."""
        return self._encode(images, training=key is not None).mean(axis=(1, 2))

    def grid_features(self, images: jax.Array) -> jax.Array:
        return self._encode(images, training=False)

    @property
    def patch_kernel(self) -> jax.Array:
        return self.stem.kernel[...]

    def _encode(self, images: jax.Array, *, training: bool) -> jax.Array:
        """Features before pooling: (B, h, w, `options.feature_size`), float32."""
        check_images(images, channels=self.options.channels)
        x = images.astype(jnp.dtype(self.options.dtype))
        x = self.after_stem(jax.nn.relu(self.stem(x, training=training)))
        for stage in range(len(self.options.depths)):
            for block in in_order(getattr(self, f"stage{stage + 1}")):
                x = block(x, training=training)
        return x.astype(jnp.float32)

    def after_stem(self, x: jax.Array) -> jax.Array:
        """The input of the first stage, of the stem's output (B, h, w, C)."""
        return x
