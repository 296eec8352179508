"""Swin: attention inside windows that shift from block to block; stages merge patches.

"Swin Transformer" (arXiv 2103.14030). Shapes: B batch, h x w features of a stage, D its width,
W windows of N = rows x columns features, H heads. A model holds parameters only. It takes images of
any size that gives every stage at least the features of one window.
"""

import dataclasses
import functools
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models import fitting, heads, limits, positions, stack
from vit_jax.models.attention import check_cudnn
from vit_jax.models.dropping import drop_path, dropout
from vit_jax.models.interpolation import Methods
from vit_jax.models.layers import Activation, Attention, BlockOptions, Mlp
from vit_jax.models.merging import PATCH_EPS, Merge
from vit_jax.models.model import Model, ModelOptions
from vit_jax.models.normalisation import layer_norm
from vit_jax.models.option_groups import Compute, Regularisation
from vit_jax.models.positions import Grid, relative_index
from vit_jax.models.preprocessing import check_images
from vit_jax.models.remat import RESIDUAL, Remat, checkpointed, named
from vit_jax.models.windows import Padding, Windows, shrink


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinOptions(Compute, Regularisation, ModelOptions):
    """A Swin Transformer with windows that fit `image_size`."""

    patch_size: tuple[int, int] = (4, 4)
    width: int = 96  # width of the first stage; each stage doubles it
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    num_heads: tuple[int, ...] = (3, 6, 12, 24)  # of each stage, or one for all
    mlp_dims: tuple[int, ...] = ()  # of each stage, or one for all; (): four times the width
    windows: tuple[Grid, ...] = ((7, 7),)  # of each stage, or one for all
    padding: Padding = "after_shift"
    num_classes: int = 1000  # 0: no head, the features are the output
    activation: Activation = "gelu_erf"
    norm_eps: float = 1e-5
    qkv_bias: bool = True
    position: Literal["none", "learned_1d"] = "none"  # added to the patches; fixes the image size
    head_bias: float = 0.0
    remat: Remat = "none"

    def __post_init__(self) -> None:
        limits.check(self)
        stages = len(self.depths)
        for name in ("num_heads", "mlp_dims", "windows"):
            given = len(getattr(self, name))
            if given != stages and not (name == "mlp_dims" and not given or given == 1):
                raise ValueError(
                    f"{name} is {getattr(self, name)}: give one for each of {stages} stages, or"
                    " one for all"
                )
        parts = ((self.width, self.channels), self.depths, self.num_heads)
        for sides in (self.image_size, self.patch_size, *self.windows, *parts):
            if min(sides, default=0) < 1:
                raise ValueError(f"sizes of a Swin must be positive, got {sides}")
        for width, number in zip(self.widths, self.stage_heads, strict=True):
            if width % number:
                raise ValueError(f"width {width} does not divide into {number} heads")
        self.stage_grids(self.image_size)
        if self.attention == "streams":
            raise ValueError("attention is 'streams', but a Swin has patches only: use 'auto'")
        if self.attention == "cudnn":
            for width, heads in zip(self.widths, self.stage_heads, strict=True):
                check_cudnn(self.dtype, head=width // heads)

    @property
    def grid(self) -> Grid:
        """Rows and columns of patches."""
        return self.stage_grids(self.image_size)[0]

    @property
    def load_arguments(self) -> dict[str, Any]:
        return {"num_heads": self.num_heads, "grid": self.grid}

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each stage."""
        return tuple(self.width * 2**i for i in range(len(self.depths)))

    @property
    def stage_heads(self) -> tuple[int, ...]:
        return _per_stage(self.num_heads, len(self.depths))

    @property
    def feature_size(self) -> int:
        return self.widths[-1]

    @property
    def stage_windows(self) -> tuple[Grid, ...]:
        """The window of each stage at the image size: smaller if the stage has fewer features."""
        wanted = _per_stage(self.windows, len(self.depths))
        grids = self.stage_grids(self.image_size)
        return tuple(shrink(w, g, self.padding) for w, g in zip(wanted, grids, strict=True))

    def stage_grids(self, image_size: Grid) -> tuple[Grid, ...]:
        """Rows and columns of features of each stage.

        Raises ValueError if the image is not made of whole patches, unless images are padded.
        """
        incomplete = any(s % p for s, p in zip(image_size, self.patch_size, strict=True))
        if incomplete and self.padding == "after_shift":
            raise ValueError(f"image {image_size} is not a multiple of the patch {self.patch_size}")
        rows, columns = (-(-s // p) for s, p in zip(image_size, self.patch_size, strict=True))
        scales = [2**i for i in range(len(self.depths))]
        return tuple((-(-rows // scale), -(-columns // scale)) for scale in scales)

    def block(self, stage: int) -> BlockOptions:
        """The options of a block of a stage."""
        names = {f.name for f in dataclasses.fields(BlockOptions)} - {"width", "num_heads"}
        shared = {k: v for k, v in vars(self).items() if k in names}
        width = self.widths[stage]
        mlp_dims = self.mlp_dims or tuple(4 * w for w in self.widths)
        return BlockOptions(
            **shared,
            width=width,
            mlp_dim=_per_stage(mlp_dims, len(self.depths))[stage],
            num_heads=self.stage_heads[stage],
            stochastic=self.drop_path > 0,
        )


class Swin(Model):
    """A Swin. `model(images)` returns logits, `model.features(images)` the input of the head."""

    def __init__(self, options: SwinOptions, *, rngs: nnx.Rngs) -> None:
        self.options = options
        self.embedding = nnx.Conv(
            options.channels,
            options.width,
            kernel_size=options.patch_size,
            strides=options.patch_size,
            padding="VALID",
            dtype=jnp.dtype(options.dtype),
            rngs=rngs,
        )
        self.embedding_norm = layer_norm(options.width, PATCH_EPS, options.dtype, rngs)
        if options.position != "none":
            shape = (1, options.grid[0] * options.grid[1], options.width)
            self.position = nnx.Param(nnx.initializers.normal(0.02)(rngs.params(), shape))
        for i in range(len(options.depths)):
            setattr(self, f"stage{i + 1}", Stage(options, i, rngs=rngs))
        self.norm = layer_norm(options.feature_size, options.norm_eps, options.dtype, rngs)
        if options.num_classes:
            self.head = heads.linear_head(options.feature_size, options.num_classes,
                                          bias=options.head_bias, rngs=rngs)  # fmt: skip

    def features(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The input of the head (B, `options.feature_size`), float32."""
        return self.encode(images, key=key).astype(jnp.float32).mean(axis=(1, 2))

    def encode(self, images: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Features before pooling: (B, h, w, `options.feature_size`), after the last norm."""
        options = self.options
        check_images(images, channels=options.channels)
        grids = options.stage_grids((images.shape[1], images.shape[2]))
        number = len(grids) + 1
        keys = [None] * number if key is None else list(jax.random.split(key, number))
        sides = zip(images.shape[1:3], options.patch_size, strict=True)
        images = jnp.pad(images, ((0, 0), *((0, -side % patch) for side, patch in sides), (0, 0)))
        x = self.embedding(images.astype(jnp.dtype(options.dtype)))
        x = self._add_positions(self.embedding_norm(x))
        x = dropout(x, options.dropout, keys[-1])
        for i, grid in enumerate(grids):
            windows = Windows(grid=grid, window=options.stage_windows[i], padding=options.padding)
            x = getattr(self, f"stage{i + 1}")(x, windows, key=keys[i])
        return self.norm(x)

    def grid_features(self, images: jax.Array) -> jax.Array:
        return self.encode(images).astype(jnp.float32)

    @property
    def patch_kernel(self) -> jax.Array:
        return self.embedding.kernel[...]

    def position_table(self) -> jax.Array | None:
        return None if self.options.position == "none" else self.position[...]

    def relative_biases(self) -> dict[str, jax.Array]:
        windows = dict(enumerate(self.options.stage_windows, 1))
        tables = {i: getattr(self, f"stage{i}").blocks.relative_bias[...] for i in windows}
        return {f"stage {i}": positions.offset_biases(tables[i], windows[i]) for i in windows}

    def _add_positions(self, x: jax.Array) -> jax.Array:
        """Adds positions to patches (B, h, w, D), if the model has a table of them."""
        options = self.options
        if options.position == "none":
            return x
        if x.shape[1:3] != options.grid:
            raise ValueError(
                f"images have {x.shape[1]}x{x.shape[2]} patches, but the model's positions are for"
                f" {options.grid[0]}x{options.grid[1]}: load it with the image_size of the images"
            )
        return x + self.position[...].astype(x.dtype).reshape(1, *options.grid, -1)


class Stage(nnx.Module):
    """Merges patches, except in the first stage, then runs blocks; every second one is shifted."""

    def __init__(self, options: SwinOptions, stage: int, *, rngs: nnx.Rngs) -> None:
        self.depth, self.remat, self.unroll = options.depths[stage], options.remat, options.unroll
        first = sum(options.depths[:stage])
        last = max(sum(options.depths) - 1, 1)
        start, end = options.drop_path_rates
        blocks = range(first, first + self.depth)
        self.drop_rates = tuple(start + (end - start) * i / last for i in blocks)
        self.merges = stage > 0
        if self.merges:
            self.merge = Merge(options.widths[stage], options.dtype, rngs=rngs)
        block, window = options.block(stage), options.stage_windows[stage]
        self.blocks = stack.stacked(
            lambda rngs: WindowBlock(block, window, rngs=rngs), self.depth, rngs=rngs
        )

    def __call__(
        self, x: jax.Array, windows: Windows, *, key: jax.Array | None = None
    ) -> jax.Array:
        """(B, h, w, D) to (B, h, w, D); a stage that merges takes (B, 2h, 2w, D/2)."""
        x = self.merge(x) if self.merges else x
        block, params = nnx.split(self.blocks)
        layers = {"params": params, "shifted": jnp.arange(self.depth) % 2}
        if key is not None:
            layers["key"] = jax.random.split(key, self.depth)
            layers["drop_rate"] = jnp.asarray(self.drop_rates)

        def body(x: jax.Array, layer: dict) -> tuple[jax.Array, None]:
            y = nnx.merge(block, layer["params"])(
                x,
                windows,
                shifted=layer["shifted"],
                drop_rate=layer.get("drop_rate", 0.0),
                key=layer.get("key"),
            )
            return y, None

        kept = checkpointed(body, self.remat)
        return jax.lax.scan(kept, x, layers, unroll=max(self.unroll, 1))[0]


class WindowBlock(nnx.Module):
    """x + attention(norm(x)) in each window, then x + mlp(norm(x)). Paper, equation 3.

    The parts are those of `layers.Block`. Padding is added after the first norm.
    """

    def __init__(self, options: BlockOptions, window: Grid, *, rngs: nnx.Rngs) -> None:
        self.options, self.window = options, window
        self.norm1 = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.attention = Attention(options, rngs=rngs)
        self.norm2 = layer_norm(options.width, options.norm_eps, options.dtype, rngs)
        self.mlp = Mlp(options, rngs=rngs)
        rows = (2 * window[0] - 1) * (2 * window[1] - 1)
        table = nnx.initializers.truncated_normal(0.02)(rngs.params(), (rows, options.num_heads))
        self.relative_bias = nnx.Param(table)

    def __call__(
        self,
        x: jax.Array,  # (B, h, w, D)
        windows: Windows,
        *,
        shifted: jax.Array,  # 0 or 1
        drop_rate: jax.Array | float = 0.0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        keys = [None] * 4 if key is None else list(jax.random.split(key, 4))
        rate = drop_rate if self.options.stochastic else 0.0
        shape = (x.shape[0], x.shape[1] * x.shape[2], x.shape[3])
        y = windows.cut(self.norm1(x), shifted)
        y = windows.join(self._attend(y, windows, shifted, keys[0]), shifted)
        x = x.reshape(shape)
        x = named(x + drop_path(y.reshape(shape), rate=rate, key=keys[1]), RESIDUAL)
        x = x + drop_path(self.mlp(self.norm2(x), key=keys[2]), rate=rate, key=keys[3])
        return x.reshape(shape[0], *windows.grid, shape[2])

    def _attend(
        self, x: jax.Array, windows: Windows, shifted: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        """Attention in each window of (W, B, N, D), with relative biases and the shift's mask."""
        index = relative_index(self.window)[1:, 1:]  # Swin has no class token
        bias = jnp.moveaxis(self.relative_bias[...][index], -1, 0)[None]  # (1, H, N, N)
        mask = jnp.asarray(windows.mask())[:, None, None]  # (W, 1, 1, N, N)
        mask = mask * shifted.astype(mask.dtype)
        keys = None if key is None else jax.random.split(key, x.shape[0])

        def attend(x: jax.Array, mask: jax.Array, key: jax.Array | None) -> jax.Array:
            return self.attention(x, bias=bias + mask, key=key)[0]

        return jax.vmap(attend)(x, mask, keys)


def _per_stage(values: tuple, stages: int) -> tuple:
    return values * stages if len(values) == 1 else values


def _resize(path: str) -> fitting.Resize | None:
    """The function that resizes a path's array; a table of biases depends on its stage's window."""
    if match := re.fullmatch(r"stage(\d+)/blocks/relative_bias", path):
        return functools.partial(_resize_windows, int(match[1]) - 1)
    return {"position": fitting.resize_table, "embedding/kernel": fitting.embed_images}.get(path)


def _resize_windows(
    stage: int, table: np.ndarray, source: SwinOptions, target: SwinOptions, methods: Methods
) -> np.ndarray:
    windows = source.stage_windows[stage], target.stage_windows[stage]
    return positions.resize_relative(
        table, source=windows[0], target=windows[1], method=methods.relative
    )


FITTING = fitting.Fitting(optional=("head", "position"), resize=_resize)

# Released models: width of the first stage, blocks of each stage, heads of each stage
_SIZES = {
    "Swin-T": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "Swin-S": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "Swin-B": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "Swin-L": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
NAMES = {
    name: {"width": width, "depths": depths, "num_heads": num_heads}
    for name, (width, depths, num_heads) in _SIZES.items()
}
