"""A masked image model: an encoder with mask tokens, and a head that predicts visual tokens.

"BEiT: BERT Pre-Training of Image Transformers" (arXiv 2106.08254). Shapes: B batch, T tokens,
N patches, D width.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import heads
from vit_jax.models.classifier import PretrainingOptions
from vit_jax.models.encoder import TaskModel
from vit_jax.models.initial import redraw
from vit_jax.models.normalisation import layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedImageModelOptions(PretrainingOptions):
    """An encoder with a mask token, and a head for pretraining."""

    part: ClassVar[str] = "mim_classes"

    mask_token: bool = True
    mim_classes: int = 8192  # outputs of the head for each patch: logits of visual tokens
    mim_norm: bool = False  # a second norm before the head (Hugging Face, without mean pooling)


class MaskedImageModel(TaskModel):
    """`model.patch_logits(images, mask=...)` returns logits, `model(images)` the features."""

    def __init__(self, options: MaskedImageModelOptions, *, rngs: nnx.Rngs) -> None:
        super().__init__(options, rngs=rngs)
        if options.mim_norm:
            self.mim_norm = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.mim_head = heads.linear_head(options.width, options.mim_classes, bias=0, rngs=rngs)
        redraw(self, options.init, fixed_position=options.fixed_position, rngs=rngs)

    def patch_logits(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = None,
        source: jax.Array | None = None,
        at: jax.Array | None = None,  # (B, n) int
        key: jax.Array | None = None,
    ) -> jax.Array:
        """Outputs of the head (B, N, `options.mim_classes`) float32 for every patch.

        BEiT's are logits of visual tokens. With `at`, only for the patches with these indices:
        (B, n, ...). See `Encoder.__call__` for `mask` and `source`.
        """
        tokens = self.encode(images, mask=mask, source=source, key=key)
        tokens = tokens[:, self.options.prefix_tokens :]
        if at is not None:
            tokens = jnp.take_along_axis(tokens, at[..., None], axis=1)
        if self.options.mim_norm:
            tokens = self.mim_norm(tokens)
        return self.mim_head(tokens).astype(jnp.float32)
