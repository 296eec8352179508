"""The .npz layout of google-research/vision_transformer.

Released files name the parts of a block as before Linen (`LayerNorm_2`, `MlpBlock_3`); files saved
by the Linen models have Linen's numbers (`LayerNorm_1`, `MlpBlock_0`). Both are read; files are
written with the names of the released ones.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import grids
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.npz import bare, left_out
from vit_jax.checkpoints.layouts.resnet import NPZ, infer_stem, stem_entries, with_numerics
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry, check_holds, pair, stacked
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.models import positions
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions

_BLOCK = "Transformer/encoderblock_{i}"
_POSITION = "Transformer/posembed_input/pos_embedding"
_ROOTS = ("embedding/kernel",)
_LINEN = {
    "LayerNorm_1": "LayerNorm_2",
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "MlpBlock_0": "MlpBlock_3",
}
_GROUP_NORM = re.compile(r"(^|/)gn(\d+|_root|_proj)/(scale|bias)$")


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    names = bare(arrays, roots=_ROOTS)
    if not all(root in names for root in _ROOTS):
        return False
    if NPZ.root in names or _POSITION not in names:
        return NPZ.root in names
    # Old big_vision files have the same names, but a pool with parameters, or a position row for a
    # class token although they have no class token.
    pool = any(name == "probe" or name.startswith("MAPHead_") for name in names)
    patches = names[_POSITION].shape[-2] - 1 if names[_POSITION].ndim == 3 else 0
    return not pool and ("cls" in names or math.isqrt(patches) ** 2 != patches)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The model's arrays with the names of released files; GroupNorm arrays become vectors."""
    del hints
    found = bare(arrays, roots=_ROOTS)
    return {_released_name(k): _squeezed(k, v) for k, v in found.items()}


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return left_out(arrays, roots=_ROOTS)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ViTOptions:
    """The model of canonical arrays.

    Raises ValueError where the arrays cannot be a model of this family.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    query = _BLOCK.replace("{i}", "0") + "/MultiHeadDotProductAttention_1/query/kernel"
    mlp = _BLOCK.replace("{i}", "0") + "/MlpBlock_3/Dense_0/kernel"
    without = "none" in (hints.position, hints.arguments.get("pos_embed"))
    learned = not without or _POSITION in shapes
    needed = {"embedding/kernel": 4, query: 3, mlp: 2} | ({_POSITION: 3} if learned else {})
    wrong = [k for k, rank in needed.items() if k not in shapes or len(shapes[k]) != rank]
    if wrong:
        hint = (
            " (give position='none' if the model has no positions)" if wrong == [_POSITION] else ""
        )
        raise ValueError(
            f"not a vit_jax checkpoint: missing or wrong-rank arrays: {', '.join(wrong)}{hint}"
        )
    height, width = shapes["embedding/kernel"][:2]
    hybrid = NPZ.root in shapes
    stem = infer_stem(shapes, NPZ, numerics=StemOptions()) if hybrid else None
    token = "cls" in shapes
    heads = shapes[query][1]
    if hints.num_heads not in (0, heads):
        raise ValueError(f"num_heads is {hints.num_heads}, the checkpoint has {heads} heads")
    stride = stem.stride if stem else 1
    if learned:
        pixels = (stride * height, stride * width)
        rows, columns = grids.plain(shapes[_POSITION][1] - token, hints, pixels=pixels)
    else:
        rows, columns = hints.nominal((stride * height, stride * width))
    return ViTOptions(
        image_size=(rows * stride * height, columns * stride * width),
        patch_size=(height, width),
        channels=shapes[NPZ.root if stem else "embedding/kernel"][2],
        width=shapes["embedding/kernel"][3],
        depth=1 + max(int(i) for i in re.findall(r"encoderblock_(\d+)/", " ".join(shapes))),
        mlp_dim=shapes[mlp][1],
        num_heads=heads,
        num_classes=shapes["head/kernel"][-1] if "head/kernel" in shapes else 0,
        stem=stem,
        position="learned_1d" if learned else "none",
        pool="token" if token else "gap",
        representation_size=shapes.get("pre_logits/kernel", (0,))[-1],
    )


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """Values in [-1, 1]; crop and interpolation of the AugReg models' published accuracies."""
    return released(options.image_size, hints, crop_pct=0.9, interpolation="bicubic_antialias")


def numerics(options: EncoderOptions) -> dict[str, Any]:
    """The fields of the options that readers of this layout assume."""
    fixed: dict[str, Any] = {"activation": "gelu_tanh", "norm_eps": 1e-6}
    if options.stem:
        fixed |= with_numerics(options.stem, StemOptions())
    return fixed


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    holds = {"image_size", "patch_size", "channels", "width", "depth", "mlp_dim", "num_heads"}
    holds |= {"num_classes", "stem", "representation_size", "position", "class_position", "pool"}
    check_holds(options, "vit_jax", holds=holds, **numerics(options))
    if options.position not in ("learned_1d", "sincos2d", "none"):
        raise ValueError(f"the vit_jax layout cannot hold position={options.position!r}")
    if options.pool not in ("token", "gap"):
        raise ValueError(f"the vit_jax layout cannot hold pool={options.pool!r}")
    attention = f"{_BLOCK}/MultiHeadDotProductAttention_1"
    qkv = [f"{attention}/{part}" for part in ("query", "key", "value")]
    table = [
        *pair("encoder/embedding", "embedding", "kernel", "bias"),
        *pair("encoder/blocks/norm1", f"{_BLOCK}/LayerNorm_0", "scale", "bias"),
        Entry(
            "encoder/blocks/attention/qkv/kernel", tuple(f"{n}/kernel" for n in qkv), *stacked(1)
        ),
        Entry("encoder/blocks/attention/qkv/bias", tuple(f"{n}/bias" for n in qkv), *stacked(0)),
        *pair("encoder/blocks/attention/out", f"{attention}/out", "kernel", "bias"),
        *pair("encoder/blocks/norm2", f"{_BLOCK}/LayerNorm_2", "scale", "bias"),
        *pair("encoder/blocks/mlp/fc1", f"{_BLOCK}/MlpBlock_3/Dense_0", "kernel", "bias"),
        *pair("encoder/blocks/mlp/fc2", f"{_BLOCK}/MlpBlock_3/Dense_1", "kernel", "bias"),
        *pair("encoder/norm", "Transformer/encoder_norm", "scale", "bias"),
    ]
    if options.position == "learned_1d":
        table.append(_position(options))
    if options.pool == "token":
        table.append(Entry("encoder/cls", ("cls",)))
    if options.representation_size:
        table += pair("pre_logits", "pre_logits", "kernel", "bias")
    if options.num_classes:
        table += pair("head", "head", "kernel", "bias")
    return table + (stem_entries(options.stem, NPZ, path="encoder/stem") if options.stem else [])


def constants(options: EncoderOptions) -> Arrays:
    """The table of fixed positions, which readers expect in the file."""
    if options.position != "sincos2d":
        return {}
    table = positions.sincos2d(options.grid, options.width)
    return {_POSITION: np.pad(table, ((0, 0), (int(options.has_class_token), 0), (0, 0)))}


def _position(options: EncoderOptions) -> Entry:
    if options.class_position or not options.has_class_token:
        return Entry("encoder/position", (_POSITION,))
    # The layout has a row for the class token: write zeros.
    return Entry(
        "encoder/position",
        (_POSITION,),
        lambda table: table[:, 1:],
        lambda table: (np.pad(table, ((0, 0), (1, 0), (0, 0))),),
    )


def _released_name(name: str) -> str:
    match = re.fullmatch(r"(Transformer/encoderblock_\d+/)([^/]+)(/.*)", name)
    return match[1] + _LINEN.get(match[2], match[2]) + match[3] if match else name


def _squeezed(name: str, array: np.ndarray) -> np.ndarray:
    return array.reshape(-1) if _GROUP_NORM.search(name) and array.size > 1 else array


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    numerics=numerics,
    constants=constants,
    notes=notes,
    beside=config.of_vit,
)
