"""The Vision Transformer: stem, patches, positions, a scan over stacked blocks, pooling, head.

One implementation for the whole family; `ViTOptions` says which member. Shapes: B batch, T tokens,
D width, H heads, d = D/H, L depth, K classes. Images are (B, height, width, channels), already in
the model's value range. A model holds parameters only: randomness is the argument `key`, and no
key means deterministic.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import heads, positions
from vit_jax.models.layers import (
    Block,
    BlockOptions,
    Dtype,
    add_position,
    dropout,
    layer_norm,
    split_batch,
)
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import Stem, StemOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTOptions:
    """A member of the family. Raises ValueError where the sizes do not fit together."""

    image_size: tuple[int, int] = (224, 224)  # (height, width)
    patch_size: tuple[int, int] = (16, 16)  # of the image, or of the stem's output
    channels: int = 3
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    num_classes: int = 1000  # 0: no head, the features are the output
    stem: StemOptions | None = None  # hybrid
    pool: Literal["token", "gap", "map"] = "token"
    representation_size: int = 0  # tanh pre-logits layer; 0: none
    position: Literal["none", "learned_1d", "learned_2d", "relative", "sincos2d"] = "learned_1d"
    position_at: Literal["input", "every_block", "every_block_shared"] = "input"
    class_position: bool = True  # whether the class token has a row in the 1D position table
    gelu: Literal["tanh", "erf"] = "tanh"
    norm_eps: float = 1e-6
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0  # of the last block; grows linearly from 0
    head_bias: float = 0.0
    dtype: Dtype = "float32"
    attention: Literal["auto", "xla", "cudnn"] = "auto"
    remat: Literal["none", "dots", "full"] = "dots"
    unroll: int = 1

    def __post_init__(self) -> None:
        _check_values(self)
        stride = self.stem.stride if self.stem else 1
        for side, size, patch in zip(
            ("height", "width"), self.image_size, self.patch_size, strict=True
        ):
            if size % (stride * patch):
                pixels = stride * patch
                near = max(round(size / pixels), 1) * pixels
                raise ValueError(
                    f"image {side} {size} is not a multiple of the patch of {pixels} pixels:"
                    f" use {near}"
                )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} does not divide into {self.num_heads} heads")
        if self.position in ("none", "relative") and self.position_at != "input":
            raise ValueError(
                f"position {self.position!r} adds nothing to tokens: position_at"
                f" {self.position_at!r} does not apply, use 'input'"
            )
        if self.position == "sincos2d" and self.position_at == "every_block":
            raise ValueError("fixed sincos2d positions have no copy per block: use 'input'")
        if self.position in ("sincos2d", "learned_2d") and self.width % 4:
            raise ValueError(f"{self.position} positions need a width that is a multiple of 4")

    @property
    def grid(self) -> positions.Grid:
        """Rows and columns of patches."""
        stride = self.stem.stride if self.stem else 1
        return (
            self.image_size[0] // (stride * self.patch_size[0]),
            self.image_size[1] // (stride * self.patch_size[1]),
        )

    @property
    def prefix_tokens(self) -> int:
        return 1 if self.pool == "token" else 0

    @property
    def tokens(self) -> int:
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def position_tokens(self) -> int:
        """Rows of a learned 1D table."""
        return self.tokens if self.class_position else self.grid[0] * self.grid[1]

    @property
    def feature_size(self) -> int:
        """Length of a feature vector, the input of the head."""
        return self.representation_size or self.width

    def block(self) -> BlockOptions:
        """The options of one block."""
        names = {f.name for f in dataclasses.fields(BlockOptions)}
        shared = {k: v for k, v in vars(self).items() if k in names}
        own = self.position == "learned_1d" and self.position_at == "every_block"
        return BlockOptions(
            **shared,
            stochastic=self.stochastic_depth > 0,
            relative_tokens=self.tokens if self.position == "relative" else 0,
            own_position_tokens=self.position_tokens if own else 0,
        )


class Intermediates(NamedTuple):
    """What every layer saw: on request only, for it holds T x T numbers per head and layer."""

    features: jax.Array  # (L, B, T, D), output of every block
    attention: jax.Array  # (L, B, H, T, T) float32, weights of every head


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
            dtype=dtype,
            rngs=rngs,
        )
        if options.pool == "token":
            self.cls = nnx.Param(jnp.zeros((1, 1, width)))
        self._create_positions(rngs)
        self.blocks = _stacked_blocks(options, rngs)
        self.norm = layer_norm(width, options.norm_eps, options.dtype, rngs)
        if options.pool == "map":
            self.pool = heads.AttentionPool(_without_positions(options.block()), rngs=rngs)
        if options.representation_size:
            self.pre_logits = nnx.Linear(width, options.representation_size, dtype=dtype, rngs=rngs)
        if options.num_classes:
            self.head = heads.linear_head(options.feature_size, options.num_classes,
                                          bias=options.head_bias, rngs=rngs)  # fmt: skip

    def __call__(
        self,
        images: jax.Array,  # (B, height, width, channels)
        *,
        key: jax.Array | None = None,
        return_intermediates: bool = False,
    ) -> Any:
        """Logits (B, K) float32; with `return_intermediates`, (logits, Intermediates)."""
        features, intermediates = self._features(images, key, return_intermediates)
        logits = self.head(features) if self.options.num_classes else features
        logits = logits.astype(jnp.float32)
        return (logits, intermediates) if return_intermediates else logits

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32."""
        return self._features(images, key, False)[0]

    def _features(
        self, images: jax.Array, key: jax.Array | None, return_intermediates: bool
    ) -> tuple[jax.Array, Intermediates | None]:
        keys = [None] * 3 if key is None else list(jax.random.split(key, 3))
        x = self._tokens(images)
        x = dropout(x, self.options.dropout, keys[0])
        x, intermediates = self._encode(x, keys[1], return_intermediates)
        x = self.norm(x)
        if self.options.pool == "token":
            x = x[:, 0]
        elif self.options.pool == "gap":
            x = x.astype(jnp.float32).mean(axis=1)
        else:
            x = self.pool(x, key=keys[2])
        if self.options.representation_size:
            x = jnp.tanh(self.pre_logits(x))
        return x.astype(jnp.float32), intermediates

    def _tokens(self, images: jax.Array) -> jax.Array:
        """Images to tokens (B, T, D) with everything that is added at the input."""
        options = self.options
        expected = (*options.image_size, options.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(f"images are {images.shape}, the model takes (batch, *{expected})")
        x = split_batch(images).astype(jnp.dtype(options.dtype))
        if options.stem:
            x = self.stem(x)
        x = self.embedding(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        if options.pool == "token":
            cls = jnp.broadcast_to(self.cls[...].astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
            x = jnp.concatenate([cls, x], axis=1)
        if options.position_at == "input":
            table = self.position_table()
            x = x if table is None else add_position(x, table)
        return x

    def _encode(
        self, x: jax.Array, key: jax.Array | None, return_intermediates: bool
    ) -> tuple[jax.Array, Intermediates | None]:
        """Scans the stacked blocks over their layer axis."""
        options = self.options
        block, params = nnx.split(self.blocks)
        shared = self.position_table() if options.position_at != "input" else None
        layers: dict[str, Any] = {"params": params}
        if options.position_at == "every_block" and options.position == "learned_2d":
            layers["position"], shared = shared, None
        if key is not None:
            layers["key"] = jax.random.split(key, options.depth)
            layers["drop_rate"] = jnp.linspace(0.0, options.stochastic_depth, options.depth)

        def body(x: jax.Array, layer: dict[str, Any]) -> tuple[jax.Array, Any]:
            table = layer.get("position", shared)
            x = x if table is None else add_position(x, table)
            x, weights = nnx.merge(block, layer["params"])(
                x,
                key=layer.get("key"),
                drop_rate=layer.get("drop_rate", 0.0),
                return_weights=return_intermediates,
            )
            x = split_batch(x)
            return x, None if weights is None else Intermediates(x, weights)

        return jax.lax.scan(_remat(body, options.remat), x, layers, unroll=options.unroll)

    def _create_positions(self, rngs: nnx.Rngs) -> None:
        """Parameters of learned tables that are not inside the blocks."""
        options = self.options
        normal = nnx.initializers.normal(0.02)
        per_block = options.position_at == "every_block"
        if options.position == "learned_1d" and not per_block:
            shape = (1, options.position_tokens, options.width)
            self.position = nnx.Param(normal(rngs.params(), shape))
        elif options.position == "learned_2d":
            lead = (options.depth, 1) if per_block else (1,)
            rows, columns = ((*lead, side, options.width // 2) for side in options.grid)
            self.position_rows = nnx.Param(normal(rngs.params(), rows))
            self.position_columns = nnx.Param(normal(rngs.params(), columns))

    def position_table(self) -> jax.Array | None:
        """What is added to tokens outside the blocks: (1, N, D), with a layer axis if per block."""
        options = self.options
        if options.position == "sincos2d":
            return jnp.asarray(positions.sincos2d(options.grid, options.width))
        if options.position == "learned_2d":
            return positions.join_2d(self.position_rows[...], self.position_columns[...])
        if options.position == "learned_1d" and options.position_at != "every_block":
            return self.position[...]
        return None


def _check_values(options: ViTOptions) -> None:
    """What each field may hold by itself. Raises ValueError."""
    for field, hint in get_type_hints(ViTOptions).items():
        value, choices = getattr(options, field), get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise ValueError(f"{field} is {value!r}: choose one of {', '.join(map(repr, choices))}")
        if hint is float and not 0 <= value < 1 and field != "head_bias":
            raise ValueError(f"{field} is {value}: it must be in [0, 1)")
        least = 0 if field in ("num_classes", "representation_size") else 1
        if hint is int and value < least:
            raise ValueError(f"{field} is {value}: it must be at least {least}")
    for field in ("image_size", "patch_size"):
        value = getattr(options, field)
        if not (isinstance(value, tuple) and len(value) == 2 and min(value) >= 1):
            raise ValueError(f"{field} is {value!r}: give (height, width), both positive")


def _stacked_blocks(options: ViTOptions, rngs: nnx.Rngs) -> Block:
    """One `Block` whose every parameter has a leading layer axis, each layer drawn on its own."""

    @nnx.split_rngs(splits=options.depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Block:
        return Block(options.block(), rngs=rngs)

    return create(rngs)


def _without_positions(options: BlockOptions) -> BlockOptions:
    return dataclasses.replace(options, relative_tokens=0, own_position_tokens=0)


def _remat(body: Any, policy: str) -> Any:
    """What the backward pass keeps of a block: all, the dense layers' outputs, or its input."""
    if policy == "none":
        return body
    policies = {
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        "full": jax.checkpoint_policies.nothing_saveable,
    }
    # A scan keeps its iterations apart, so the barrier against merging them is not needed.
    return functools.partial(jax.checkpoint, prevent_cse=False, policy=policies[policy])(body)
