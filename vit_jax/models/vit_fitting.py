"""How the parameters of a Vision Transformer are fitted to another one, for every task model.

Shapes: D width. Tables are as in `positions`.
"""

import numpy as np

from vit_jax.models import fitting, positions
from vit_jax.models.fitting import Fitting, Params, cut_or_pad
from vit_jax.models.interpolation import Methods
from vit_jax.models.lora import BLOCKS, LAYERS
from vit_jax.models.options import EncoderOptions

_POSITIONS = (
    *("encoder/position", "encoder/position_rows", "encoder/position_columns"),
    *("encoder/blocks/position", "encoder/blocks/attention/relative"),
)
_RELATIVE, _BLOCK_RELATIVE = "encoder/relative_bias", "encoder/blocks/attention/relative_bias"
_HEADS = ("head", "head_distillation")
_TOKENS = ("cls", "distillation", "registers")  # in the order of their rows in a table


def _replaced(source: EncoderOptions, target: EncoderOptions) -> tuple[str, ...]:
    replaced: tuple[str, ...] = ()
    if source.representation_size != target.representation_size:
        replaced += ("pre_logits",)
    if replaced or source.feature_size != target.feature_size:
        replaced += _HEADS
    if source.head_norm != target.head_norm:
        replaced += ("head_norm", *_HEADS)
    if source.mim_classes != target.mim_classes:
        replaced += ("mim_head",)
    if source.pool != target.pool:
        replaced += ("pool",)
    if source.norm_at != target.norm_at:
        replaced += ("encoder/norm",)
    if (source.position, source.position_at) != (target.position, target.position_at):
        replaced += _POSITIONS
    return replaced


def _realigned(params: Params, source: EncoderOptions, target: EncoderOptions) -> Params:
    """Gives the position table the target's rows, and each block its biases if they were shared."""
    params = dict(params)
    if (source.relative_bias, target.relative_bias) == ("shared", "per_block"):
        shared = params.pop(_RELATIVE)
        params[_BLOCK_RELATIVE] = np.repeat(shared[None], target.depth, axis=0)
    table = params.get("encoder/position")
    if table is None or target.position != "learned_1d":
        return params
    rows, patches = np.split(table, [source.position_prefix], axis=-2)
    kept: dict[str, np.ndarray] = {}
    for name, count in _prefix_rows(source).items():
        kept[name], rows = np.split(rows, [count], axis=-2)
    wanted = _prefix_rows(target)
    for name in _TOKENS:
        # If the target has no row for a token, the row is added to the token once and for all.
        path = f"encoder/{name}"
        if name in kept and path in params and name not in wanted:
            params[path] = params[path] + kept[name]
    empty = np.zeros_like(table[..., :0, :])
    prefix = [cut_or_pad(kept.get(name, empty), count) for name, count in wanted.items()]
    params["encoder/position"] = np.concatenate([*prefix, patches], axis=-2)
    return params


def _prefix_rows(options: EncoderOptions) -> dict[str, int]:
    """Number of position-table rows for each kind of token before the patches, in order."""
    rows = {}
    if options.class_position and options.has_class_token:
        rows["cls"] = 1
    if options.class_position and options.distillation:
        rows["distillation"] = 1
    if options.register_position and options.registers:
        rows["registers"] = options.registers
    return rows


def _resize_decoder_table(
    table: np.ndarray, source: EncoderOptions, target: EncoderOptions, methods: Methods
) -> np.ndarray:
    """Resizes the decoder's 1D table; the "flat" method treats the patches as one row."""
    old, new = source.grid, target.grid
    if methods.decoder == "flat" and old != new:
        old, new = (1, old[0] * old[1]), (1, new[0] * new[1])
    return positions.resize(table, source=old, target=new, method=methods.position)


def _resize_block_table(
    table: np.ndarray, source: EncoderOptions, target: EncoderOptions, methods: Methods
) -> np.ndarray:
    """Resizes the table of every block, and gives it the rows that the target's prefix has."""
    patches = source.grid[0] * source.grid[1]
    if table.shape[-2] == target.position_prefix + patches:
        return fitting.resize_table(table, source, target, methods)
    rows = cut_or_pad(table[..., :-patches, :], target.position_prefix)
    table = np.concatenate([rows, table[..., -patches:, :]], axis=-2)
    return fitting.resize_table(table, source, target, methods)


def _resize_relative(
    table: np.ndarray, source: EncoderOptions, target: EncoderOptions, methods: Methods
) -> np.ndarray:
    return positions.resize_relative(
        table, source=source.grid, target=target.grid, method=methods.relative
    )


def _embed(
    kernel: np.ndarray, source: EncoderOptions, target: EncoderOptions, methods: Methods
) -> np.ndarray:
    """Fits the patch embedding; with a stem before it, it does not see the image channels."""
    embed = fitting.resample_patch if target.stem else fitting.embed_images
    return embed(kernel, source, target, methods)


_RESIZE: dict[str, fitting.Resize] = {
    "encoder/position": fitting.resize_table,
    "encoder/blocks/position": _resize_block_table,
    "decoder/position": _resize_decoder_table,
    _RELATIVE: _resize_relative,
    _BLOCK_RELATIVE: _resize_relative,
    "encoder/position_rows": lambda a, _, target, __: positions.resize_rows(a, target.grid[0]),
    "encoder/position_columns": lambda a, _, target, __: positions.resize_rows(a, target.grid[1]),
    # Approximate: the same raster offset means another displacement on another grid.
    "encoder/blocks/attention/relative": lambda a, _, target, __: positions.resize_rows(
        a, 2 * target.tokens - 1
    ),
    "encoder/embedding/kernel": _embed,
    "encoder/stem/root/kernel": fitting.fit_channels,
}

FITTING = Fitting(
    heads=_HEADS,
    optional=(
        *(f"encoder/{token}" for token in (*_TOKENS, "mask")),
        *(*_POSITIONS, _RELATIVE, _BLOCK_RELATIVE),
        *("pool", "pre_logits", "head_norm", *_HEADS, "mim_head", "mim_norm", "decoder"),
    ),
    added=(
        *("encoder/blocks/scale1", "encoder/blocks/scale2"),
        *(f"{BLOCKS}/{layer}/lora" for layer in LAYERS),
    ),
    resize=_RESIZE.get,
    replaced=_replaced,
    realigned=_realigned,
)
