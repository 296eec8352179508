"""A masked autoencoder: it encodes the visible patches and decodes the pixels of all patches.

"Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377). Shapes: B batch, T tokens,
N patches, n of them visible, D width.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from vit_jax.models.classifier import PretrainingOptions
from vit_jax.models.decoder import Decoder, DecoderOptions, random_masking
from vit_jax.models.encoder import TaskModel
from vit_jax.models.initial import redraw


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoderOptions(PretrainingOptions):
    """An encoder with fixed positions, and a decoder for pretraining."""

    part: ClassVar[str] = "decoder"

    fixed_position: bool = True
    decoder: DecoderOptions = DecoderOptions()

    def _check_task(self) -> None:
        super()._check_task()
        if (self.position, self.position_at) != ("learned_1d", "input"):
            raise ValueError("a masked autoencoder needs position 'learned_1d' at 'input'")
        if self.relative_bias != "none":
            raise ValueError(
                "a masked autoencoder encodes the visible patches alone, and relative_bias"
                f" {self.relative_bias!r} is for all patches of an image: use 'none'"
            )
        if self.stem:
            raise ValueError(
                "a masked autoencoder hides patches of the image, so it cannot have a stem, which"
                " mixes the pixels of neighbouring patches"
            )


class MaskedAutoencoder(TaskModel):
    """`model.reconstruct(images, noise=...)` returns pixels, `model(images)` the features."""

    def __init__(self, options: MaskedAutoencoderOptions, *, rngs: nnx.Rngs) -> None:
        super().__init__(options, rngs=rngs)
        sizes = options.decoder
        self.decoder = Decoder(
            sizes,
            options.plain_block(
                width=sizes.width,
                mlp_dim=sizes.mlp_dim,
                num_heads=sizes.num_heads,
                qkv_bias=options.qkv_bias,
                unrolled=options.unroll > 1,
            ),
            latent_width=options.width,
            prefix=options.prefix_tokens,
            grid=options.grid,
            outputs=options.patch_size[0] * options.patch_size[1] * options.channels,
            rngs=rngs,
        )
        redraw(self, options.init, fixed_position=options.fixed_position, rngs=rngs)

    def reconstruct(
        self,
        images: jax.Array,
        *,
        noise: jax.Array,  # (B, N); the patches with the largest noise are hidden
        mask_ratio: float = 0.75,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The predicted pixels (B, N, pixels of a patch) float32, and the mask (B, N).

        Pixels of a patch are in the order row, column, channel.
        """
        masking = random_masking(noise, ratio=mask_ratio)
        tokens = self.encode(images, keep=masking.keep, key=key)
        options = self.options
        pixels = self.decoder(tokens, masking.restore, remat=options.remat, unroll=options.unroll)
        return pixels, masking.mask
