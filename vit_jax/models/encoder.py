"""The encoder of a Vision Transformer, from images to tokens. Task models wrap it.

Stem, patches, tokens, positions, a scan over stacked blocks, and the last norm. Shapes: B batch,
T tokens, N patches, n kept patches, R rows of a position table, D width, L depth. Images are
(B, height, width, channels), already in the model's value range. A model holds parameters only:
randomness is the argument `key`, and no key means deterministic.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import positions, stack
from vit_jax.models.dropping import dropout
from vit_jax.models.layers import Block, grid_bias, relative_table
from vit_jax.models.model import Model
from vit_jax.models.normalisation import layer_norm
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import check_images
from vit_jax.models.resnet import Stem
from vit_jax.models.sharding import split_batch
from vit_jax.models.stack import Intermediates


class Encoder(nnx.Module):
    """Tokens (B, T, D) of images: class token, distillation token, registers, patches."""

    # Blocks that replace the last ones; then only these get a gradient. A training step sets it.
    last_blocks: Block | None = None

    def __init__(self, options: EncoderOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        width, dtype = options.width, jnp.dtype(options.dtype)
        channels = options.channels
        if options.stem:
            self.stem = Stem(options.stem, channels=channels, dtype=options.dtype, rngs=rngs)
            channels = options.stem.out_channels
        self.embedding = nnx.Conv(
            channels,
            width,
            kernel_size=options.patch_size,
            strides=options.patch_size,
            padding="VALID",
            use_bias=options.patch_bias,
            dtype=dtype,
            rngs=rngs,
        )
        self._create_tokens(rngs)
        self._create_positions(rngs)
        if options.input_norm:
            self.input_norm = layer_norm(width, options.norm_eps, options.dtype, rngs)
        self.blocks = stack.create(options.block(), options.depth, rngs=rngs)
        self.norm = layer_norm(width, options.norm_eps, options.dtype, rngs)

    def __call__(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = None,  # (B, N) bool
        source: jax.Array | None = None,  # (B, N) int
        keep: jax.Array | None = None,  # (B, n) int
        key: jax.Array | None = None,
        return_intermediates: bool = False,
    ) -> tuple[jax.Array, Intermediates | None]:
        """All tokens (B, T, D) after the last block, and the `Intermediates` if requested.

        The tokens are normalised, unless `options.norm_at` is "pooled": the task model then
        normalises the pooled features. The mask token replaces each patch where `mask` is true;
        each other place has the embedding of the patch whose index is in `source`. With `keep`,
        only the patches with these indices are encoded.
        """
        options = self.options
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        x = self.patches(images, mask, source)
        x = self.add_prefix(x, keep)
        x = dropout(x, options.dropout, keys[0])
        if options.input_norm:
            x = self.input_norm(x)
        table = self.position_table() if options.position_at != "input" else None
        layered = options.position_at == "every_block" and options.position == "learned_2d"
        shared = options.relative_bias == "shared"
        apart = options.attention == "streams" and not return_intermediates
        x, intermediates = stack.scan(
            self.blocks,
            x,
            depth=options.depth,
            table=None if layered else table,
            tables=table if layered else None,
            bias=grid_bias(self.relative_bias[...], options.grid) if shared else None,
            drop_path=options.drop_path_rates,
            key=keys[1],
            return_intermediates=return_intermediates,
            remat=options.remat,
            unroll=options.unroll,
            apart=options.prefix_tokens if apart else 0,
            last=self.last_blocks,
        )
        return (self.norm(x) if options.norm_at == "tokens" else x), intermediates

    def patches(
        self,
        images: jax.Array,
        mask: jax.Array | None = None,
        source: jax.Array | None = None,
    ) -> jax.Array:
        """Embeds images as patches (B, N, D); see `__call__` for `mask` and `source`."""
        options = self.options
        check_images(images, channels=options.channels, image_size=options.image_size)
        x = split_batch(images).astype(jnp.dtype(options.dtype))
        if options.stem:
            x = self.stem(x)
        x = self.embedding(x)
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])
        if source is not None:
            x = jnp.take_along_axis(x, source[..., None], axis=1)
        return x if mask is None else jnp.where(mask[..., None], self.mask[...].astype(x.dtype), x)

    def add_prefix(self, x: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Turns patches (B, N, D) into tokens (B, T, D), with positions if they are added here."""
        options = self.options
        tokens: list[jax.Array] = []
        if options.has_class_token:
            tokens.append(self.cls[...])
        if options.distillation:
            tokens.append(self.distillation[...])
        if options.registers:
            tokens.append(self.registers[...])
        table = self.position_table() if options.position_at == "input" else None
        prefix = jnp.concatenate(tokens, axis=1).astype(x.dtype) if tokens else None
        if table is not None:
            rows = table.shape[1] - x.shape[1]
            x = x + table[:, rows:].astype(x.dtype)
            if prefix is not None:
                without = ((0, 0), (0, prefix.shape[1] - rows), (0, 0))  # positions
                prefix = prefix + jnp.pad(table[:, :rows].astype(x.dtype), without)
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        if prefix is None:
            return x
        prefix = jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape[1:]))
        return jnp.concatenate([prefix, x], axis=1)

    def position_table(self) -> jax.Array | None:
        """Positions that no block holds: (1, R, D), or (L, 1, R, D) for one table per block."""
        options = self.options
        if options.position == "sincos2d":
            return jnp.asarray(positions.sincos2d(options.grid, options.width))
        if options.position == "learned_2d":
            return positions.join_2d(self.position_rows[...], self.position_columns[...])
        if options.position == "learned_1d" and options.position_at != "every_block":
            table = self.position[...]
            return jax.lax.stop_gradient(table) if options.fixed_position else table
        return None

    def _create_tokens(self, rngs: nnx.Rngs) -> None:
        options = self.options
        normal = nnx.initializers.normal(0.02)
        one = (1, 1, options.width)
        if options.has_class_token:
            self.cls = nnx.Param(jnp.zeros(one))
        if options.distillation:
            self.distillation = nnx.Param(normal(rngs.params(), one))
        if options.registers:
            shape = (1, options.registers, options.width)
            self.registers = nnx.Param(normal(rngs.params(), shape))
        if options.mask_token:
            self.mask = nnx.Param(normal(rngs.params(), one))

    def _create_positions(self, rngs: nnx.Rngs) -> None:
        """Creates the position tables that are not inside the blocks."""
        options = self.options
        normal = nnx.initializers.normal(0.02)
        per_block = options.position_at == "every_block"
        if options.fixed_position:
            prefix = options.position_prefix
            table = positions.fixed_table(options.grid, options.width, prefix=prefix)
            self.position = nnx.Param(jnp.asarray(table))
        elif options.position == "learned_1d" and not per_block:
            shape = (1, options.position_tokens, options.width)
            self.position = nnx.Param(normal(rngs.params(), shape))
        elif options.position == "learned_2d":
            lead = (options.depth, 1) if per_block else (1,)
            rows, columns = ((*lead, side, options.width // 2) for side in options.grid)
            self.position_rows = nnx.Param(normal(rngs.params(), rows))
            self.position_columns = nnx.Param(normal(rngs.params(), columns))
        if options.relative_bias == "shared":
            self.relative_bias = relative_table(options.grid, options.num_heads)


class TaskModel(Model):
    """A model that wraps an encoder. `model(images)` returns the features, unless overridden."""

    def __init__(self, options: EncoderOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.encoder = Encoder(options, rngs=rngs)

    def __call__(self, images: jax.Array, *, key: jax.Array | None = None) -> Any:
        return self.features(images, key=key)

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The class token (B, D) float32, or the mean of the patches if there is none."""
        tokens = self.encode(images, key=key)
        if self.options.has_class_token:
            return tokens[:, 0].astype(jnp.float32)
        return tokens[:, self.options.prefix_tokens :].astype(jnp.float32).mean(axis=1)

    def encode(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = None,
        source: jax.Array | None = None,
        keep: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """The tokens (B, T, D) of the encoder: see `Encoder.__call__`."""
        return self.encoder(images, mask=mask, source=source, keep=keep, key=key)[0]

    def attention_weights(self, images: jax.Array) -> jax.Array:
        intermediates = self.encoder(images, return_intermediates=True)[1]
        assert intermediates is not None, "requested"
        return intermediates.attention

    def grid_features(self, images: jax.Array) -> jax.Array:
        patches = self.encode(images)[:, self.options.prefix_tokens :].astype(jnp.float32)
        return patches.reshape(-1, *self.options.grid, patches.shape[-1])

    @property
    def patch_kernel(self) -> jax.Array:
        below, encoder = self.options.stem, self.encoder
        return encoder.stem.root.standardized if below else encoder.embedding.kernel[...]

    def position_table(self) -> jax.Array | None:
        return None if self.options.position_at == "every_block" else self.encoder.position_table()

    def relative_biases(self) -> dict[str, jax.Array]:
        options = self.options
        if options.relative_bias == "none":
            return {}
        shared = options.relative_bias == "shared"
        table = (
            self.encoder.relative_bias if shared else self.encoder.blocks.attention.relative_bias
        )
        offsets = positions.offset_biases(table[...], options.grid)
        return {"all blocks": offsets[None]} if shared else {"blocks": offsets}
