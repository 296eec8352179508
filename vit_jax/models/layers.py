"""The blocks of a Vision Transformer: attention, MLP, and the two residual branches of a block.

Shapes: B batch, T tokens, Q queries, R rows of a position table, D width, H heads, d = D/H.
Parameters are float32; `dtype` is the dtype of the computation. Norm statistics and the softmax are
float32 for every `dtype`. Randomness is an argument: no key means deterministic.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models import attention, lora, positions
from vit_jax.models.attention import AttentionKind
from vit_jax.models.dropping import drop_marked, drop_path, dropout, mark
from vit_jax.models.lora import LoraOptions
from vit_jax.models.normalisation import layer_norm
from vit_jax.models.remat import ATTENTION, BRANCH, HIDDEN, QKV, RESIDUAL, named
from vit_jax.models.sharding import by_image, row_major

Streams = jax.Array | tuple[jax.Array, ...]  # tokens (B, T, D) in one array, or in several
XAVIER = nnx.initializers.xavier_uniform()
MLP_BIAS = nnx.initializers.normal(1e-6)

Dtype = Literal["float32", "bfloat16"]
Activation = Literal["gelu_tanh", "gelu_erf", "gelu_quick"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """The options of one block; the fields mean the same as in `EncoderOptions`."""

    width: int
    mlp_dim: int
    num_heads: int
    activation: Activation = "gelu_tanh"
    mlp: Literal["plain", "swiglu"] = "plain"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    layer_scale: float = 0.0
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic: bool = False  # whether branches can be dropped at all
    relative_tokens: int = 0  # sequence length of relative positions; 0: none
    relative_grid: positions.Grid | None = None  # grid of this block's own relative bias
    own_position_tokens: int = 0  # rows of this block's own position table; 0: none
    lora: LoraOptions | None = None
    dtype: Dtype = "float32"
    attention: AttentionKind = "auto"
    unrolled: bool = False  # whether the stack of blocks is unrolled
    ordered: bool = False  # whether a TPU is told how arrays lie in its memory


class Block(nnx.Module):
    """Pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)). Paper, eq. 2 and 3."""

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.norm1 = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.attention = Attention(options, rngs=rngs)
        self.norm2 = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.mlp = Mlp(options, rngs=rngs)
        if options.layer_scale:
            scale = jnp.full((options.width,), options.layer_scale)
            self.scale1, self.scale2 = nnx.Param(scale), nnx.Param(scale)
        if options.own_position_tokens:
            shape = (1, options.own_position_tokens, options.width)
            self.position = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))

    def __call__(
        self,
        x: Streams,
        *,
        bias: jax.Array | None = None,  # broadcastable to (B, H, T, T)
        drop_rate: jax.Array | float = 0.0,
        key: jax.Array | None = None,
        return_weights: bool = False,
    ) -> tuple[Streams, jax.Array | None]:
        """Returns tokens in the form of `x`, and the weights (B, H, T, T) float32 if requested."""
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        if self.options.own_position_tokens:
            assert isinstance(x, jax.Array), "the options refuse several arrays"
            x = add_position(x, self.position[...])
        drop_branch = functools.partial(
            drop_path, rate=drop_rate if self.options.stochastic else 0.0
        )

        def attended(x: jax.Array, y: jax.Array) -> jax.Array:
            if self.options.layer_scale:
                y = named(y, BRANCH) * self.scale1[...].astype(y.dtype)[None, None]
            return named(x + drop_branch(y, key=keys[1]), RESIDUAL)

        def transformed(x: jax.Array) -> jax.Array:
            y = self.mlp(self.norm2(x), key=keys[2])
            if self.options.layer_scale:
                y = named(y, BRANCH) * self.scale2[...].astype(y.dtype)[None, None]
            return x + drop_branch(y, key=keys[3])

        normal, weights = jax.tree.map(self.norm1, x), None
        y: Streams
        if isinstance(normal, tuple):
            y = self.attention.of_streams(normal)
        else:
            y, weights = self.attention(
                normal, bias=bias, key=keys[0], return_weights=return_weights
            )
        y = jax.tree.map(transformed, jax.tree.map(attended, x, y))
        if isinstance(y, tuple):
            # Else, where blocks are unrolled, the compiler of a TPU puts the tokens of all images
            # first, and copies all inputs and outputs of the products: a step of B/16 at 256
            # pixels takes 1.2 times as long.
            patches, *few = y
            y = (row_major(patches, tensor=0), *few)
        return jax.tree.map(by_image, y) if self.options.ordered else y, weights


class Attention(nnx.Module):
    """Multi-head attention with one fused projection; self-attention unless `queries` is given.

    The kernel (D, 3, H, d) holds query, key and value; each is initialised separately.
    """

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        width, heads = options.width, options.num_heads
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        shape = (3, heads, width // heads)
        dtype = jnp.dtype(options.dtype)
        self.qkv = lora.LinearGeneral(
            width,
            shape,
            axis=-1,
            use_bias=options.qkv_bias,
            dtype=dtype,
            kernel_init=_fused_xavier,
            rngs=rngs,
        )
        self.out = lora.LinearGeneral(
            shape[1:], width, axis=(-2, -1), dtype=dtype, kernel_init=XAVIER, rngs=rngs
        )
        if options.relative_tokens:
            table = (2 * options.relative_tokens - 1, width // heads)
            self.relative = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), table))
        if options.relative_grid:
            self.relative_bias = relative_table(options.relative_grid, heads)
        if options.qk_norm:
            norm = functools.partial(layer_norm, width // heads, options.norm_eps, options.dtype)
            self.query_norm, self.key_norm = norm(rngs), norm(rngs)
        lora.attach(self.qkv, "attention/qkv", options.lora, rngs=rngs)
        lora.attach(self.out, "attention/out", options.lora, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,  # (B, T, D)
        *,
        queries: jax.Array | None = None,  # (B, Q, D)
        bias: jax.Array | None = None,  # broadcastable to (B, H, Q, T)
        key: jax.Array | None = None,
        return_weights: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Returns (B, Q, D), and the weights (B, H, Q, T) float32 if requested.

        "auto" computes attention as "recompute" does: see `attention_choice.runnable` for GPUs.
        """
        options = self.options
        q, k, v = self._inputs(x, queries)
        if options.relative_tokens:
            bias = _sum(bias, relative_bias(q, self.relative[...].astype(q.dtype)))
        if options.relative_grid:
            bias = _sum(bias, grid_bias(self.relative_bias[...], options.relative_grid))
        keys = [None] * 2 if key is None else list(jax.random.split(key))
        weights = None
        if return_weights or (options.attention_dropout and key is not None):
            weights = attention_weights(q, k, bias)
            dropped = dropout(weights, options.attention_dropout, keys[0])
            y = named(attention.apply_weights(dropped, v), ATTENTION)
        else:
            y = self._attend(q, k, v, bias)
        return dropout(self.out(y), options.dropout, keys[1]), weights

    def of_streams(self, xs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Self-attention of tokens in several arrays (B, T, D), without bias and dropout."""
        qs, ks, vs = zip(*(self._inputs(x, None) for x in xs), strict=True)
        return tuple(self.out(y) for y in attention.attend_streams(qs, ks, vs))

    def _inputs(
        self, x: jax.Array, queries: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries (B, Q, H, d), keys and values (B, T, H, d)."""
        options = self.options
        if queries is None and (options.key_bias or not options.qkv_bias):
            q, k, v = self._project_together(x)
        else:
            q, k, v = self._project(x if queries is None else queries, x)
        if options.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        return q, k, v

    def _attend(
        self, q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None
    ) -> jax.Array:
        kind = self.options.attention
        if kind == "auto" or kind == "recompute" or kind == "streams":
            options = self.options
            return attention.attend(
                q, k, v, bias, unrolled=options.unrolled, ordered=options.ordered
            )
        return attention.library(q, k, v, bias, kind=kind, even=kind == "cudnn")

    def _project_together(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values (B, T, H, d) of one sequence, by one product."""
        qkv = lora.product(self.qkv, x)
        if self.qkv.bias is not None:
            return attention.split(qkv, self.qkv.bias[...])
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        return named(q, QKV), named(k, QKV), named(v, QKV)

    def _project(self, queries: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries (B, Q, H, d) of one sequence, keys and values (B, T, H, d) of another."""
        dtype = jnp.dtype(self.options.dtype)
        # As `lora.product`, for inputs that differ.
        adapter, kernel = self.qkv.lora, self.qkv.kernel[...]
        kernel = (kernel if adapter is None else adapter.merged(kernel)).astype(dtype)
        inputs = (queries, x, x)
        q, k, v = (jnp.einsum("btD,Dhd->bthd", t, kernel[:, i]) for i, t in enumerate(inputs))
        if adapter is not None:
            zeros = (adapter.gradient(t.astype(dtype))[:, :, i] for i, t in enumerate(inputs))
            q, k, v = (y + zero for y, zero in zip((q, k, v), zeros, strict=True))
        if self.qkv.bias is not None:
            bias = self.qkv.bias[...].astype(dtype)
            q, v = q + bias[None, None, 0], v + bias[None, None, 2]
            k = k + bias[None, None, 1] if self.options.key_bias else k
        return named(q, QKV), named(k, QKV), named(v, QKV)


class Mlp(nnx.Module):
    """Two dense layers with a GELU between them; dropout follows both. Paper, section 3.1.

    With "swiglu" the first layer returns gate and value, and silu(gate) * value replaces the GELU.
    """

    def __init__(self, options: BlockOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        linear = functools.partial(
            lora.Linear,
            dtype=jnp.dtype(options.dtype),
            kernel_init=XAVIER,
            bias_init=MLP_BIAS,
            rngs=rngs,
        )
        parts = 2 if options.mlp == "swiglu" else 1
        self.fc1 = linear(options.width, parts * options.mlp_dim)
        self.fc2 = linear(options.mlp_dim, options.width)
        lora.attach(self.fc1, "mlp/fc1", options.lora, rngs=rngs)
        lora.attach(self.fc2, "mlp/fc2", options.lora, rngs=rngs)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        keys = [None] * 2 if key is None else list(jax.random.split(key))
        rate, x = self.options.dropout, self.fc1(x)
        x = by_image(x, tensor=2) if self.options.ordered else x
        if self.options.mlp == "swiglu":
            gate, value = jnp.split(x, 2, axis=-1)
            x = named(mark(gate, rate, keys[0]), HIDDEN)
            y = jax.nn.silu(x) * named(value, HIDDEN)
        else:
            x = named(mark(x, rate, keys[0]), HIDDEN)
            y = gelu(x, self.options.activation)
        return dropout(self.fc2(drop_marked(y, x, rate, keys[0])), rate, keys[1])


def gelu(x: jax.Array, kind: Activation) -> jax.Array:
    """GELU: exact (erf), or approximated by tanh or by the logistic function ("gelu_quick")."""
    if kind == "gelu_quick":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.gelu(x, approximate=kind == "gelu_tanh")


def add_position(x: jax.Array, table: jax.Array) -> jax.Array:
    """Adds (1, R, D) to the last R of the T tokens: a table may leave out the class token."""
    table = table.astype(x.dtype)
    skipped = x.shape[1] - table.shape[1]
    if not skipped:
        return x + table
    return x + jnp.pad(table, ((0, 0), (skipped, 0), (0, 0)))


def attention_weights(q: jax.Array, k: jax.Array, bias: jax.Array | None) -> jax.Array:
    """softmax(q k / sqrt(d) + bias), float32 (B, H, Q, T), of q (B, Q, H, d), k (B, T, H, d)."""
    return jax.nn.softmax(attention.logits_of(q, k, bias), axis=-1)


def relative_bias(q: jax.Array, table: jax.Array) -> jax.Array:
    """Biases (B, H, T, T) from queries (B, T, H, d) and embeddings of offsets (2T-1, d).

    One-dimensional relative attention in raster order (paper, appendix D.4): the product of each
    query with the embedding of the offset between the positions of query and key.
    """
    tokens, head_dim = q.shape[1], q.shape[-1]
    offsets = jnp.arange(tokens)[:, None] - jnp.arange(tokens)[None, :] + tokens - 1
    logits = jnp.einsum("bthd,tsd->bhts", q, table[offsets], preferred_element_type=jnp.float32)
    return logits * head_dim**-0.5


def relative_table(grid: positions.Grid, heads: int) -> nnx.Param:
    """A table of zero biases ((2 rows - 1)(2 columns - 1) + 3, H): see `relative_index`."""
    return nnx.Param(jnp.zeros(((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads)))


def grid_bias(table: jax.Array, grid: positions.Grid) -> jax.Array:
    """Biases (1, H, T, T) of the attention logits, looked up in a relative table (rows, H)."""
    return jnp.moveaxis(table[positions.relative_index(grid)], -1, 0)[None]


def _sum(a: jax.Array | None, b: jax.Array) -> jax.Array:
    return b if a is None else a + b


def _fused_xavier(
    key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32, **_: object
) -> jax.Array:
    """Xavier-uniform (D, 3 H d), drawn as three separate (D, H d): query, key and value."""
    rows, columns = shape[0], shape[1] // 3
    parts = [XAVIER(k, (rows, columns), dtype) for k in jax.random.split(key, 3)]
    return jnp.concatenate(parts, axis=1)
