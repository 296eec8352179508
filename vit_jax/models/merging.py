"""Merging of patches between the stages of a Swin.

Shapes: B batch, h x w features of a stage, D its width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers import XAVIER, Dtype
from vit_jax.models.normalisation import layer_norm

PATCH_EPS = 1e-5  # epsilon of the norms after embedding and merging patches


class Merge(nnx.Module):
    """Joins 2 x 2 patches and halves their channels: (B, 2h, 2w, D/2) to (B, h, w, D)."""

    def __init__(self, width: int, dtype: Dtype, *, rngs: nnx.Rngs) -> None:
        self.norm = layer_norm(2 * width, PATCH_EPS, dtype, rngs)
        self.reduction = nnx.Linear(
            2 * width, width, use_bias=False, dtype=jnp.dtype(dtype), kernel_init=XAVIER, rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        batch, rows, columns, width = x.shape
        x = jnp.pad(x, ((0, 0), (0, rows % 2), (0, columns % 2), (0, 0)))
        x = x.reshape(batch, -(-rows // 2), 2, -(-columns // 2), 2, width)
        x = x.transpose(0, 1, 3, 4, 2, 5)  # order of the four patches: down, then right
        return self.reduction(self.norm(x.reshape(*x.shape[:3], 4 * width)))
