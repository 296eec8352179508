"""The fields of a Vision Transformer's options, in groups: sizes, tokens, positions, ...

`options.EncoderOptions` joins them, and checks that they fit together.
"""

import dataclasses
from typing import Literal

from vit_jax.models.attention import AttentionKind
from vit_jax.models.layers import Activation
from vit_jax.models.lora import LoraOptions
from vit_jax.models.model import ModelOptions
from vit_jax.models.remat import Remat
from vit_jax.models.resnet import StemOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes(ModelOptions):
    """Sizes of the images, the patches and the blocks."""

    patch_size: tuple[int, int] = (16, 16)  # (height, width) in pixels, or in the stem's output
    drop_edges: bool = False  # ignore edge pixels that do not fill a patch
    width: int = 768
    depth: int = 12
    mlp_dim: int = 3072
    num_heads: int = 12
    stem: StemOptions | None = None  # a ResNet before the patches (hybrid models)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """Tokens before the patches, in this order: class token, distillation token, registers."""

    class_token: bool | None = None  # None: only if the task needs it
    distillation: bool = False  # a second token (DeiT)
    registers: int = 0  # number of extra tokens that no head reads
    mask_token: bool = False  # a learned token that replaces hidden patches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Positions:
    """How positions of patches are encoded."""

    # Learned tables and sincos2d are added to tokens; relative changes the attention.
    position: Literal["none", "learned_1d", "learned_2d", "relative", "sincos2d"] = "learned_1d"
    # At the input, or before every block, with a table per block or with a shared one.
    position_at: Literal["input", "every_block", "every_block_shared"] = "input"
    class_position: bool = True  # whether the 1D table has rows for class and distillation token
    register_position: bool = False  # whether the 1D table has rows for the registers
    fixed_position: bool = False  # the 1D table starts as sines and is not trained (MAE)
    # A learned bias of the attention for every offset and head (BEiT).
    relative_bias: Literal["none", "per_block", "shared"] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockNumerics:
    """Numerics of the layers."""

    activation: Activation = "gelu_tanh"
    mlp: Literal["plain", "swiglu"] = "plain"  # swiglu: a gated MLP
    norm_eps: float = 1e-6  # epsilon of LayerNorm
    input_norm: bool = False  # a norm before the blocks (CLIP)
    patch_bias: bool = True
    qkv_bias: bool = True
    key_bias: bool = True  # False: the keys' part of the fused bias stays zero (BEiT)
    qk_norm: bool = False  # a norm of queries and keys
    layer_scale: float = 0.0  # initial scale of every residual branch; 0: no scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regularisation:
    """What is randomly dropped during training."""

    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0  # rate of the last block
    drop_path_grows: bool = True  # linearly from 0 in the first block; False: one rate (DeiT III)

    @property
    def drop_path_rates(self) -> tuple[float, float]:
        """The rates of the first and the last block, between which they grow linearly."""
        return (0.0 if self.drop_path_grows else self.drop_path), self.drop_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapters:
    """What fine-tuning adds to the blocks."""

    lora: LoraOptions | None = None  # low-rank adapters of their dense layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """How the model is computed. Like `dtype`, this does not change what parameters mean."""

    # "auto" is chosen for the devices and the sizes of a run, and the log has the choice.
    # What computes the attention: "recompute" computes its weights again in the backward pass,
    # and "streams" also keeps the patches apart from the tokens before them, which is faster on
    # TPUs for slightly more than a multiple of 128 tokens. "xla" differentiates the plain form,
    # "cudnn" uses cuDNN.
    attention: AttentionKind = "auto"
    # What to recompute in the backward pass: nothing; all but the outputs of matrix products;
    # queries, keys and values too ("lean"); everything.
    remat: Remat = "auto"
    unroll: int = 0  # blocks in one iteration of the scan; 0: as "auto"
