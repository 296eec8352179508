"""A masked image model: an encoder with mask tokens, and a head that predicts visual tokens.

"BEiT: BERT Pre-Training of Image Transformers" (arXiv 2106.08254). Shapes: B batch, T tokens,
N patches, D width.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

from vit_jax.models import heads
from vit_jax.models.classifier import PretrainingOptions
from vit_jax.models.encoder import TaskModel
from vit_jax.models.normalisation import layer_norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedImageModelOptions(PretrainingOptions):
    """An encoder with a mask token, and a head for pretraining."""

    part: ClassVar[str] = "mim_classes"

    mask_token: bool = True
    mim_classes: int = 8192  # outputs of the head for each patch: logits of visual tokens
    mim_norm: bool = False  # a second norm before the head (Hugging Face, without mean pooling)
    # Initial values: as in all other models, or as BEiT's code draws them for pretraining.
    init: Literal["xavier", "beit"] = "xavier"


class MaskedImageModel(TaskModel):
    """`model.patch_logits(images, mask=...)` returns logits, `model(images)` the features."""

    def __init__(self, options: MaskedImageModelOptions, *, rngs: nnx.Rngs) -> None:
        super().__init__(options, rngs=rngs)
        if options.mim_norm:
            self.mim_norm = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.mim_head = heads.linear_head(options.width, options.mim_classes, bias=0, rngs=rngs)
        if options.init == "beit":
            _initialise(self, depth=options.depth, rngs=rngs)

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


def _initialise(model: nnx.Module, *, depth: int, rngs: nnx.Rngs) -> None:
    """Draws kernels and tokens from BEiT's distribution, and sets biases to zero.

    A normal distribution of deviation 0.02, cut at one deviation. The output projections of both
    branches of block l, counted from 1, are divided by sqrt(2 l).
    """
    layers = jnp.sqrt(2 * jnp.arange(1.0, depth + 1))

    def redrawn(path: tuple[Any, ...], value: jax.Array) -> jax.Array:
        if path[-1] == "bias":
            return jnp.zeros_like(value)
        if path[-1] not in ("kernel", "cls", "mask"):
            return value
        drawn = 0.02 * jax.random.truncated_normal(rngs.params(), -1.0, 1.0, value.shape)
        if path[-3:] in (("attention", "out", "kernel"), ("mlp", "fc2", "kernel")):
            drawn = drawn / layers.reshape(depth, *[1] * (value.ndim - 1))
        return drawn.astype(value.dtype)

    params = nnx.to_pure_dict(nnx.state(model))
    flat = {
        path: redrawn(path, value) for path, value in traverse_util.flatten_dict(params).items()
    }
    nnx.update(model, traverse_util.unflatten_dict(flat))
