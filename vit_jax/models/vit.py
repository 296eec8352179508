"""The Vision Transformer: stem, patches, positions, a scan over stacked blocks, pooling, head.

One implementation for the whole family; `ViTOptions` says which member. Shapes: B batch, T tokens,
N patches, D width, H heads, d = D/H, L depth, K classes. Images are (B, height, width, channels),
already in the model's value range. A model holds parameters only: randomness is the argument
`key`, and no key means deterministic.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import decoder, encoder, heads, positions
from vit_jax.models.encoder import Intermediates
from vit_jax.models.layers import dropout, grid_bias, layer_norm, relative_table, split_batch
from vit_jax.models.options import ViTOptions
from vit_jax.models.preprocessing import Preprocessing, check_images
from vit_jax.models.resnet import Stem

__all__ = ["Intermediates", "ViT", "ViTOptions"]


class ViT(nnx.Module):
    """A Vision Transformer. `model(images)` gives logits, `model.features(images)` their input."""

    preprocessing: Preprocessing | None = None  # of a loaded model
    class_names: tuple[str, ...] = ()  # of a loaded model, where known

    def __init__(self, options: ViTOptions, *, rngs: nnx.Rngs) -> None:
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
        self.blocks = encoder.stack(options.block(), options.depth, rngs=rngs)
        self.norm = layer_norm(width, options.norm_eps, options.dtype, rngs)
        self._create_heads(rngs)

    def __call__(
        self,
        images: jax.Array,  # (B, height, width, channels)
        *,
        key: jax.Array | None = None,
        return_intermediates: bool = False,
        return_heads: bool = False,
    ) -> Any:
        """Logits (B, K) float32; with `return_intermediates`, (logits, Intermediates).

        A model with a distillation head gives the mean of its heads; with `return_heads` any model
        gives a tuple of the logits of each.
        """
        options = self.options
        features, intermediates = self._features(images, key, return_intermediates)
        if not options.num_classes:
            outputs: tuple[jax.Array, ...] = tuple(features)
        else:
            two = (self.head, self.head_distillation) if options.heads == 2 else (self.head,)
            outputs = tuple(head(x) for head, x in zip(two, features, strict=True))
        outputs = tuple(x.astype(jnp.float32) for x in outputs)
        logits = outputs if return_heads else sum(outputs[1:], outputs[0]) / len(outputs)
        return (logits, intermediates) if return_intermediates else logits

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32; of two heads, the mean."""
        features, _ = self._features(images, key, False)
        return jnp.stack(features).mean(axis=0) if len(features) > 1 else features[0]

    def encode(
        self,
        images: jax.Array,
        *,
        mask: jax.Array | None = None,
        keep: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """All tokens (B, T, D) after the last block, normalised where `norm_at` is "tokens".

        The mask token replaces patches where `mask` (B, N) is true; of the patches only those
        numbered `keep` (B, n) are encoded.
        """
        return self._sequence(images, key, mask=mask, keep=keep)[0]

    def patch_logits(
        self, images: jax.Array, *, mask: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Logits (B, N, `options.mim_classes`) float32 of the visual token of every patch."""
        tokens = self.encode(images, mask=mask, key=key)
        if self.options.mim_norm:
            tokens = self.mim_norm(tokens)
        return self.mim_head(tokens[:, self.options.prefix_tokens :]).astype(jnp.float32)

    def reconstruct(
        self,
        images: jax.Array,
        *,
        noise: jax.Array,  # (B, N): the larger, the sooner hidden
        mask_ratio: float = 0.75,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """A masked autoencoder's prediction (B, N, pixels of a patch) float32, and its mask (B, N).

        Pixels of a patch are in the order row, column, channel.
        """
        masking = decoder.random_masking(noise, ratio=mask_ratio)
        tokens = self.encode(images, keep=masking.keep, key=key)
        options = self.options
        pixels = self.decoder(tokens, masking.restore, remat=options.remat, unroll=options.unroll)
        return pixels, masking.mask

    def _features(
        self, images: jax.Array, key: jax.Array | None, return_intermediates: bool
    ) -> tuple[tuple[jax.Array, ...], Intermediates | None]:
        """The input of each head (B, feature_size) float32."""
        options = self.options
        x, intermediates = self._sequence(images, key, return_intermediates)
        patches = x[:, options.prefix_tokens :]
        pooled: tuple[jax.Array, ...]
        if options.pool == "token":
            pooled = tuple(x[:, i] for i in range(options.heads))
        elif options.pool == "gap":
            pooled = (patches.astype(jnp.float32).mean(axis=1),)
        elif options.pool == "token_gap":
            pooled = (jnp.concatenate([x[:, 0], patches.mean(axis=1)], axis=-1),)
        else:
            pool_key = None if key is None else jax.random.split(key, 3)[2]
            pooled = (self.pool(patches, key=pool_key),)
        if options.norm_at == "pooled":
            pooled = tuple(self.norm(x) for x in pooled)
        if options.representation_size:
            pooled = tuple(jnp.tanh(self.pre_logits(x)) for x in pooled)
        return tuple(x.astype(jnp.float32) for x in pooled), intermediates

    def _sequence(
        self,
        images: jax.Array,
        key: jax.Array | None,
        return_intermediates: bool = False,
        *,
        mask: jax.Array | None = None,
        keep: jax.Array | None = None,
    ) -> tuple[jax.Array, Intermediates | None]:
        """Images to encoded tokens."""
        options = self.options
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        x = self._patches(images, mask)
        x = self._add_prefix(x, keep)
        x = dropout(x, options.dropout, keys[0])
        if options.input_norm:
            x = self.input_norm(x)
        table = self.position_table() if options.position_at != "input" else None
        layered = options.position_at == "every_block" and options.position == "learned_2d"
        shared = options.relative_bias == "shared"
        x, intermediates = encoder.scan(
            self.blocks,
            x,
            depth=options.depth,
            table=None if layered else table,
            tables=table if layered else None,
            bias=grid_bias(self.relative_bias[...], options.grid) if shared else None,
            stochastic_depth=options.stochastic_depth,
            key=keys[1],
            return_intermediates=return_intermediates,
            remat=options.remat,
            unroll=options.unroll,
        )
        return (self.norm(x) if options.norm_at == "tokens" else x), intermediates

    def _patches(self, images: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Images to embedded patches (B, N, D)."""
        options = self.options
        check_images(images, channels=options.channels, image_size=options.image_size)
        x = split_batch(images).astype(jnp.dtype(options.dtype))
        if options.stem:
            x = self.stem(x)
        x = self.embedding(x)
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])
        return x if mask is None else jnp.where(mask[..., None], self.mask[...].astype(x.dtype), x)

    def _add_prefix(self, x: jax.Array, keep: jax.Array | None) -> jax.Array:
        """Patches (B, N, D) to tokens (B, T, D), with the positions that are added at the input."""
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
                prefix = prefix.at[:, :rows].add(table[:, :rows].astype(x.dtype))
        if keep is not None:
            x = jnp.take_along_axis(x, keep[..., None], axis=1)
        if prefix is None:
            return x
        prefix = jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape[1:]))
        return jnp.concatenate([prefix, x], axis=1)

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

    def _create_heads(self, rngs: nnx.Rngs) -> None:
        options = self.options
        if options.pool == "map":
            self.pool = heads.AttentionPool(options.plain_block(), rngs=rngs)
        if options.representation_size:
            width = options.width * (2 if options.pool == "token_gap" else 1)
            dtype = jnp.dtype(options.dtype)
            self.pre_logits = nnx.Linear(width, options.representation_size, dtype=dtype, rngs=rngs)
        sizes = (options.feature_size, options.num_classes)
        if options.num_classes:
            self.head = heads.linear_head(*sizes, bias=options.head_bias, rngs=rngs)
        if options.num_classes and options.heads == 2:
            self.head_distillation = heads.linear_head(*sizes, bias=options.head_bias, rngs=rngs)
        if options.mim_norm:
            self.mim_norm = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        if options.mim_classes:
            self.mim_head = heads.linear_head(options.width, options.mim_classes, bias=0, rngs=rngs)
        if sizes_of := options.decoder:
            self.decoder = decoder.Decoder(
                sizes_of,
                options.plain_block(
                    width=sizes_of.width,
                    mlp_dim=sizes_of.mlp_dim,
                    num_heads=sizes_of.num_heads,
                    qkv_bias=options.qkv_bias,
                ),
                latent_width=options.width,
                prefix=options.prefix_tokens,
                grid=options.grid,
                outputs=options.patch_size[0] * options.patch_size[1] * options.channels,
                rngs=rngs,
            )

    def _create_positions(self, rngs: nnx.Rngs) -> None:
        """Parameters of learned tables that are not inside the blocks."""
        options = self.options
        normal = nnx.initializers.normal(0.02)
        per_block = options.position_at == "every_block"
        if options.fixed_position:
            prefix = options.position_prefix
            table = decoder.fixed_table(options.grid, options.width, prefix=prefix)
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

    def position_table(self) -> jax.Array | None:
        """What is added to tokens outside the blocks: (1, N, D), with a layer axis if per block."""
        options = self.options
        if options.position == "sincos2d":
            return jnp.asarray(positions.sincos2d(options.grid, options.width))
        if options.position == "learned_2d":
            return positions.join_2d(self.position_rows[...], self.position_columns[...])
        if options.position == "learned_1d" and options.position_at != "every_block":
            table = self.position[...]
            return jax.lax.stop_gradient(table) if options.fixed_position else table
        return None
