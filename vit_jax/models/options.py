"""The options that all task models of a Vision Transformer share.

`EncoderOptions` joins the groups of `option_groups`. The options of a task model extend it:
`classifier.ViTOptions`, `masked_autoencoder.MaskedAutoencoderOptions` and
`masked_image_model.MaskedImageModelOptions`.
"""

import dataclasses
from typing import Any, Self, get_type_hints

from vit_jax.models import limits, positions
from vit_jax.models.attention import check_cudnn
from vit_jax.models.decoder import DecoderOptions
from vit_jax.models.initial import Init
from vit_jax.models.layers import BlockOptions
from vit_jax.models.option_groups import (
    Adapters,
    BlockNumerics,
    Compute,
    Positions,
    Regularisation,
    Sizes,
    Tokens,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderOptions(Compute, Adapters, Regularisation, BlockNumerics, Positions, Tokens, Sizes):
    """What all task models share. Raises ValueError if the fields do not fit together."""

    # Initial values, but of the head: those of ViT ("xavier"), big_vision, DeiT, MAE or BEiT.
    init: Init = "xavier"

    def __post_init__(self) -> None:
        _check_values(self)
        limits.check(self)
        self._check_sizes()
        limits.check_tokens(self.tokens)
        block = 4 * self.width**2 + 2 * self.width * self.mlp_dim
        ends = self.feature_size * self.num_classes + self.tokens * self.width
        limits.check_parameters(self.depth * block + ends)
        self._check_positions()
        self._check_attention()
        self._check_task()

    def _check_sizes(self) -> None:
        stride = self.stem.stride if self.stem else 1
        for side, size, patch in zip(
            ("height", "width"), self.image_size, self.patch_size, strict=True
        ):
            pixels = stride * patch
            # A stem pads an image that its stride does not divide, and has more rows for it.
            dropped = self.drop_edges and not self.stem
            if size < pixels or size % pixels and not dropped:
                near = max(round(size / pixels), 1) * pixels
                raise ValueError(
                    f"image {side} {size} is not a multiple of the patch of {pixels} pixels:"
                    f" use {near}"
                )
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} does not divide into {self.num_heads} heads")

    def _check_positions(self) -> None:
        if self.position in ("none", "relative") and self.position_at != "input":
            raise ValueError(
                f"position {self.position!r} adds nothing to tokens: position_at"
                f" {self.position_at!r} does not apply, use 'input'"
            )
        if self.position == "sincos2d" and self.position_at == "every_block":
            raise ValueError("position 'sincos2d' has no table per block: use position_at 'input'")
        if self.position in ("sincos2d", "learned_2d") and self.width % 4:
            raise ValueError(f"{self.position} positions need a width that is a multiple of 4")
        if self.fixed_position and (self.position != "learned_1d" or self.width % 4):
            raise ValueError(
                "fixed_position needs position 'learned_1d' and a width that is a multiple of 4"
            )
        rows, grid = self.position_tokens, self.grid[0] * self.grid[1]
        if self.position_at != "input" and rows not in (self.tokens, grid):
            raise ValueError(
                f"position_at {self.position_at!r} needs rows for all tokens or for patches only:"
                " set class_position and register_position to the same value"
            )
        if self.register_position and not self.class_position:
            raise ValueError("register_position needs class_position")
        if self.relative_bias != "none" and self.prefix_tokens != 1:
            raise ValueError(
                "relative_bias needs a class token, and no other tokens beside the patches"
            )

    def _check_attention(self) -> None:
        """Raises ValueError if what is chosen cannot compute the attention."""
        if self.attention == "cudnn":
            check_cudnn(self.dtype, head=self.width // self.num_heads)
        if self.attention == "streams" and not self.streams_possible:
            raise ValueError(
                "attention 'streams' needs a token before the patches, and neither dropout nor"
                " positions or biases inside the blocks: use attention 'auto'"
            )

    def _check_task(self) -> None:
        """Checks what the task needs. Raises ValueError."""
        if self.distillation and not self.has_class_token:
            raise ValueError("distillation needs the class token")

    @property
    def grid(self) -> positions.Grid:
        """Rows and columns of patches."""
        stride = self.stem.stride if self.stem else 1
        return (
            self.image_size[0] // (stride * self.patch_size[0]),
            self.image_size[1] // (stride * self.patch_size[1]),
        )

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width in pixels of the part of an image that the patches cover."""
        stride = self.stem.stride if self.stem else 1
        rows, columns = (
            number * stride * patch
            for number, patch in zip(self.grid, self.patch_size, strict=True)
        )
        return rows, columns

    @property
    def streams_possible(self) -> bool:
        """Whether blocks can compute patches apart from the tokens before them."""
        inside = self.position == "relative" or self.position_at != "input"
        biased = inside or self.relative_bias != "none"
        dropped = self.dropout > 0 or self.attention_dropout > 0
        return self.prefix_tokens > 0 and not (biased or dropped)

    @property
    def fixed_table(self) -> bool:
        return self.position == "sincos2d"

    @property
    def has_class_token(self) -> bool:
        return self.needs_class_token if self.class_token is None else self.class_token

    @property
    def needs_class_token(self) -> bool:
        """Whether the task reads a class token."""
        return True

    @property
    def load_arguments(self) -> dict[str, Any]:
        heads = self.decoder.num_heads if self.decoder else None
        return {"num_heads": self.num_heads, "grid": self.grid, "decoder_heads": heads}

    @property
    def prefix_tokens(self) -> int:
        """Number of tokens before the patches."""
        return self.has_class_token + self.distillation + self.registers

    @property
    def tokens(self) -> int:
        return self.prefix_tokens + self.grid[0] * self.grid[1]

    @property
    def position_tokens(self) -> int:
        """Number of rows of a learned 1D table."""
        return self.position_prefix + self.grid[0] * self.grid[1]

    @property
    def position_prefix(self) -> int:
        """Number of rows of a learned 1D table that belong to tokens before the patches."""
        rows = (self.has_class_token + self.distillation) * self.class_position
        return rows + self.registers * self.register_position

    @property
    def feature_size(self) -> int:
        return self.width

    @property
    def listed(self) -> tuple[int, ...]:
        return self.width, self.depth, self.mlp_dim, self.num_heads, self.tokens

    # Fields of one task model; the other task models have these values.
    @property
    def pool(self) -> str:
        return "token" if self.has_class_token else "gap"

    @property
    def norm_at(self) -> str:
        return "tokens"

    @property
    def representation_size(self) -> int:
        return 0

    @property
    def head_norm(self) -> str:
        return "none"

    @property
    def head_std(self) -> float:
        return 0.0

    @property
    def head_bias(self) -> float:
        return 0.0

    @property
    def distillation_head(self) -> bool:
        return True

    @property
    def decoder(self) -> DecoderOptions | None:
        """Decoder options of a masked autoencoder, else None."""
        return None

    @property
    def mim_classes(self) -> int:
        """Number of visual tokens of a masked image model, else 0."""
        return 0

    @property
    def mim_norm(self) -> bool:
        return False

    @property
    def heads(self) -> int:
        """2 with a head for the distillation token, else 1."""
        return 1 + (self.distillation and self.distillation_head)

    def block(self) -> BlockOptions:
        """The options of one block."""
        names = {f.name for f in dataclasses.fields(BlockOptions)}
        shared = {k: v for k, v in vars(self).items() if k in names}
        own = self.position == "learned_1d" and self.position_at == "every_block"
        return BlockOptions(
            **shared,
            stochastic=self.drop_path > 0,
            unrolled=self.unroll > 1,
            ordered=self._ordered,
            relative_tokens=self.tokens if self.position == "relative" else 0,
            own_position_tokens=self.position_tokens if own else 0,
            relative_grid=self.grid if self.relative_bias == "per_block" else None,
        )

    def plain_block(self, **changes: int) -> BlockOptions:
        """The options of a plain block outside the encoder: same numerics, other sizes."""
        kept = ("width", "mlp_dim", "num_heads", "activation", "norm_eps", "dropout",
                "attention_dropout", "dtype", "attention")  # fmt: skip
        shared = {name: getattr(self, name) for name in kept}
        return BlockOptions(**(shared | changes), ordered=self._ordered)

    @property
    def _ordered(self) -> bool:
        """Whether a TPU is told how arrays lie in its memory: JAX's own attention is left alone."""
        return self.attention not in ("xla", "cudnn")

    def plain(self) -> Self:
        options = self
        if self.has_class_token == self.needs_class_token:
            options = dataclasses.replace(self, class_token=None)
        if options.position == "none":
            options = dataclasses.replace(options, class_position=True)
        return options

    def with_rows_of(self, target: Self) -> Self:
        return dataclasses.replace(self, class_position=target.class_position)

    def described(self) -> str:
        rows, columns = self.patch_size
        sizes = f"of width {self.width}, depth {self.depth}, {self.num_heads} heads"
        patches = f"patches of {rows}x{columns}"
        return ", ".join((f"{self.kind} {sizes}", patches, *self._input_and_output()))


def _check_values(options: EncoderOptions) -> None:
    """Raises ValueError for sizes that are zero, and for no pair of sides."""
    may_be_zero = ("num_classes", "representation_size", "registers", "unroll")
    for field, hint in get_type_hints(type(options)).items():
        value = getattr(options, field)
        least = 0 if field in may_be_zero else 1
        if hint is int and value < least:
            raise ValueError(f"{field} is {value}: it must be at least {least}")
    for field in ("image_size", "patch_size"):
        value = getattr(options, field)
        if not (isinstance(value, tuple) and len(value) == 2 and min(value) >= 1):
            raise ValueError(f"{field} is {value!r}: give (height, width), both positive")
