"""The parts after the encoder: attention pooling and the linear classification head.

Shapes: B batch, T tokens, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers import XAVIER, Attention, BlockOptions, Mlp
from vit_jax.models.normalisation import layer_norm


class AttentionPool(nnx.Module):
    """Multi-head attention pooling: a learned probe attends to all tokens, then an MLP.

    (B, T, D) -> (B, D). "Scaling Vision Transformers" (arXiv 2106.04560), section 2.
    """

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs) -> None:
        self.probe = nnx.Param(XAVIER(rngs.params(), (1, 1, options.width)))
        self.attention = Attention(options, rngs=rngs)
        self.norm = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.mlp = Mlp(options, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        keys = [None] * 2 if key is None else list(jax.random.split(key))
        probe = self.probe[...].astype(x.dtype)
        probe = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[-1]))
        y, _ = self.attention(x, queries=probe, key=keys[0])
        return (y + self.mlp(self.norm(y), key=keys[1]))[:, 0]


def linear_head(
    features: int, classes: int, *, bias: float, std: float = 0.0, rngs: nnx.Rngs
) -> nnx.Linear:
    """A float32 head; `bias` is the initial bias of every class, `std` the deviation of the kernel.

    A deviation of 0 makes the initial kernel zero.
    """
    return nnx.Linear(
        features,
        classes,
        dtype=jnp.float32,
        kernel_init=nnx.initializers.normal(std) if std else nnx.initializers.zeros,
        bias_init=nnx.initializers.constant(bias),
        rngs=rngs,
    )
