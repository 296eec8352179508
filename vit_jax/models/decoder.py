"""The decoder of a masked autoencoder: it predicts the pixels of all patches.

Its input is the encoder's latents of the visible patches.

"Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377), section 3. Shapes: B batch,
N patches, n of them visible, P prefix tokens (the class token).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import limits, positions, stack
from vit_jax.models.layers import XAVIER, BlockOptions
from vit_jax.models.normalisation import layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """Sizes of the decoder. The paper uses these defaults for every encoder."""

    width: int = 512
    depth: int = 8
    mlp_dim: int = 2048
    num_heads: int = 16

    def __post_init__(self) -> None:
        limits.check(self)
        for name, value in vars(self).items():
            if not value:
                raise ValueError(f"decoder {name} is 0: it must be at least 1")
        if self.width % self.num_heads or self.width % 4:
            raise ValueError(
                f"decoder width {self.width} must be a multiple of 4 and of {self.num_heads} heads"
            )


class Masking(NamedTuple):
    """Which patches of every image are hidden."""

    keep: jax.Array  # (B, n) int, the visible patches in the order in which they are encoded
    restore: jax.Array  # (B, N) int, index of each patch in the sequence [visible, hidden]
    mask: jax.Array  # (B, N) bool, True where hidden


def random_masking(noise: jax.Array, *, ratio: float) -> Masking:
    """Hides the share `ratio` of the N patches: those with the largest noise (B, N).

    Raises ValueError if that hides no patch or every patch.
    """
    patches = noise.shape[1]
    visible = int(patches * (1 - ratio))
    if not 0 < visible < patches:
        raise ValueError(
            f"mask ratio {ratio} hides {patches - visible} of {patches} patches:"
            " at least one must be hidden and one visible"
        )
    shuffle = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(shuffle, axis=1)
    return Masking(keep=shuffle[:, :visible], restore=restore, mask=restore >= visible)


class Decoder(nnx.Module):
    """Projects the latents, fills in mask tokens, adds fixed positions, predicts the pixels."""

    def __init__(
        self,
        options: DecoderOptions,
        block: BlockOptions,
        *,
        latent_width: int,
        prefix: int,
        grid: positions.Grid,
        outputs: int,
        rngs: nnx.Rngs,
    ) -> None:
        self.options, self.prefix = options, prefix
        dtype = jnp.dtype(block.dtype)
        self.embedding = nnx.Linear(
            latent_width, options.width, dtype=dtype, kernel_init=XAVIER, rngs=rngs
        )
        normal = nnx.initializers.normal(0.02)
        self.mask = nnx.Param(normal(rngs.params(), (1, 1, options.width)))
        self.position = nnx.Param(
            jnp.asarray(positions.fixed_table(grid, options.width, prefix=prefix))
        )
        self.blocks = stack.create(block, options.depth, rngs=rngs)
        self.norm = layer_norm(options.width, block.norm_eps, block.dtype, rngs)
        self.prediction = nnx.Linear(
            options.width, outputs, dtype=jnp.float32, kernel_init=XAVIER, rngs=rngs
        )

    def __call__(
        self,
        latents: jax.Array,  # (B, P + n, width of the encoder)
        restore: jax.Array,  # (B, N) int
        *,
        remat: str = "none",
        unroll: int = 0,
    ) -> jax.Array:
        """Predicted pixels of every patch (B, N, outputs) float32."""
        x = self.embedding(latents)
        prefix, visible = x[:, : self.prefix], x[:, self.prefix :]
        hidden = (x.shape[0], restore.shape[1] - visible.shape[1], x.shape[2])
        mask = jnp.broadcast_to(self.mask[...].astype(x.dtype), hidden)
        patches = jnp.concatenate([visible, mask], axis=1)
        patches = jnp.take_along_axis(patches, restore[..., None], axis=1)
        x = jnp.concatenate([prefix, patches], axis=1)
        x = x + jax.lax.stop_gradient(self.position[...]).astype(x.dtype)
        x, _ = stack.scan(self.blocks, x, depth=self.options.depth, remat=remat, unroll=unroll)
        return self.prediction(self.norm(x)[:, self.prefix :])
