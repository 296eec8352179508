"""The .npz layout of google-research/big_vision's ViT, in all versions.

Arrays have no prefix, or `params/` or `opt/target/`; an image tower has `img/` after that. Blocks
are numbered, or scanned: one `encoderblock` with a leading layer axis. Old files have the positions
inside the encoder, with a row for the class token, which is added to `cls` on reading: the current
model adds positions before it adds the class token. Even older files name the parts of a block as
before Linen, and have the parts of the pooling at the root. Files are written in the current
version, with numbered blocks.

Known gaps: models trained with pool_type='0' (the first patch) or 'none' cannot be told apart and
load as "gap". FlexiViT's model resizes its positions like `resize="bilinear_antialias"`, but the
code that loads it for fine-tuning resizes them as for any ViT, which is the default here.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts import grids
from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.npz import bare, left_out
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry, check_holds, pair, stacked
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.models.classifier import ViTOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_NUMERICS = {"activation": "gelu_tanh", "norm_eps": 1e-6}

_BLOCK = "params/Transformer/encoderblock_{i}"
_POOL = "params/MAPHead_0"
_POSITION = "params/pos_embedding"
_OLD_POSITION = "Transformer/posembed_input/pos_embedding"
_ATTENTION = "MultiHeadDotProductAttention_0"

_ROOTS = ("embedding/kernel",)
_SCANNED = "params/Transformer/encoderblock/"
_RENAMED = (
    (r"^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding"),
    (r"^(Transformer/encoderblock(?:_\d+)?)/LayerNorm_2/", r"\1/LayerNorm_1/"),
    (r"^(Transformer/encoderblock(?:_\d+)?)/MultiHeadDotProductAttention_1/", rf"\1/{_ATTENTION}/"),
    (r"^(Transformer/encoderblock(?:_\d+)?)/MlpBlock_3/", r"\1/MlpBlock_0/"),
    (r"^(MAPHead_\d+/)?probe$", "MAPHead_0/probe"),
    (
        r"^(?:MAPHead_\d+/)?(LayerNorm|MlpBlock|MultiHeadDotProductAttention)_\d+/",
        r"MAPHead_0/\1_0/",
    ),
)


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    names = bare(arrays, roots=_ROOTS)
    blocks = any(name.startswith("Transformer/encoderblock") for name in names)
    return "embedding/kernel" in names and blocks


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The arrays of the image tower with current names under `params/`, and numbered blocks.

    Raises ValueError for a file from before Linen that lacks positions: such old models had no
    fixed positions.
    """
    found = bare(arrays, roots=_ROOTS)
    arrays = {f"params/{_current_name(k)}": v for k, v in found.items()}
    prelinen = any("/LayerNorm_2/" in name for name in found)
    if _POSITION not in arrays and prelinen and hints.position != "none":
        raise ValueError(f"1 misfits: missing {_OLD_POSITION}")
    for name in [k for k, v in arrays.items() if k.startswith(_SCANNED) and v.ndim]:
        part, layers = name.removeprefix(_SCANNED), arrays.pop(name)
        arrays |= {f"{_BLOCK.replace('{i}', str(i))}/{part}": a for i, a in enumerate(layers)}
    return _without_class_row(arrays, hints)


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return left_out(arrays, roots=_ROOTS)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ViTOptions:
    """The model of canonical arrays. Without an array of positions it has fixed ones.

    Raises ValueError where the arrays cannot be a model of this family.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    first = _BLOCK.replace("{i}", "0")
    query, mlp = f"{first}/{_ATTENTION}/query/kernel", f"{first}/MlpBlock_0/Dense_0/kernel"
    needed = {"params/embedding/kernel": 4, query: 3, mlp: 2}
    wrong = [k for k, rank in needed.items() if len(shapes.get(k, ())) != rank]
    if _POSITION in shapes and len(shapes[_POSITION]) != 3:
        wrong.append(_POSITION)
    if wrong:
        raise ValueError(
            f"not a big_vision checkpoint: missing or wrong-rank arrays: {', '.join(wrong)}"
        )
    heads = shapes[query][1]
    if hints.num_heads not in (0, heads):
        raise ValueError(f"num_heads is {hints.num_heads}, the checkpoint has {heads} heads")
    height, width = shapes["params/embedding/kernel"][:2]
    learned, token = _POSITION in shapes, "params/cls" in shapes
    if learned:
        # `canonical` has added the notes already, so these are dropped.
        unnoted = dataclasses.replace(hints, notes=[])
        rows, columns = grids.plain(shapes[_POSITION][1], unnoted, pixels=(height, width))
    else:  # the model works at any image size
        rows, columns = hints.nominal((height, width))
    return ViTOptions(
        image_size=(rows * height, columns * width),
        patch_size=(height, width),
        channels=shapes["params/embedding/kernel"][2],
        width=shapes["params/embedding/kernel"][3],
        depth=1 + max(int(i) for i in re.findall(r"encoderblock_(\d+)/", " ".join(shapes))),
        mlp_dim=shapes[mlp][1],
        num_heads=heads,
        num_classes=shapes.get("params/head/kernel", (0,))[-1],
        pool="token" if token else "map" if f"{_POOL}/probe" in shapes else "gap",
        representation_size=shapes.get("params/pre_logits/kernel", (0,))[-1],
        position="learned_1d" if learned else "sincos2d",
        class_position=not token,
    )


def numerics(options: EncoderOptions) -> dict[str, Any]:
    """The fields of the options that readers of this layout assume.

    In the current version a class token has no row of positions: it is added to the token.
    """
    row = options.position == "learned_1d" and options.has_class_token and not options.registers
    return _NUMERICS | ({"class_position": False} if row else {})


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    return released(options.image_size, hints)


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    holds = {"image_size", "patch_size", "channels", "width", "depth", "mlp_dim", "num_heads"}
    holds |= {"num_classes", "pool", "representation_size", "position", "class_position"}
    check_holds(options, "big_vision", holds=holds, **_NUMERICS)
    if options.position not in ("learned_1d", "sincos2d"):
        raise ValueError(f"the big_vision layout cannot hold position={options.position!r}")
    table = [
        *pair("encoder/embedding", "params/embedding", "kernel", "bias"),
        *pair("encoder/blocks/norm1", f"{_BLOCK}/LayerNorm_0", "scale", "bias"),
        *_attention("encoder/blocks/attention", f"{_BLOCK}/{_ATTENTION}"),
        *pair("encoder/blocks/norm2", f"{_BLOCK}/LayerNorm_1", "scale", "bias"),
        *_mlp("encoder/blocks/mlp", f"{_BLOCK}/MlpBlock_0"),
        *pair("encoder/norm", "params/Transformer/encoder_norm", "scale", "bias"),
    ]
    if options.position == "learned_1d":
        table.append(Entry("encoder/position", (_POSITION,)))
    if options.pool == "token":
        table.append(Entry("encoder/cls", ("params/cls",)))
    if options.pool == "map":
        table.append(Entry("pool/probe", (f"{_POOL}/probe",)))
        table += _attention("pool/attention", f"{_POOL}/{_ATTENTION}")
        table += pair("pool/norm", f"{_POOL}/LayerNorm_0", "scale", "bias")
        table += _mlp("pool/mlp", f"{_POOL}/MlpBlock_0")
    if options.representation_size:
        table += pair("pre_logits", "params/pre_logits", "kernel", "bias")
    if options.num_classes:
        table += pair("head", "params/head", "kernel", "bias")
    return table


def _attention(path: str, name: str) -> list[Entry]:
    parts = [f"{name}/{part}" for part in ("query", "key", "value")]
    return [
        Entry(f"{path}/qkv/kernel", tuple(f"{n}/kernel" for n in parts), *stacked(1)),
        Entry(f"{path}/qkv/bias", tuple(f"{n}/bias" for n in parts), *stacked(0)),
        *pair(f"{path}/out", f"{name}/out", "kernel", "bias"),
    ]


def _mlp(path: str, name: str) -> list[Entry]:
    return [
        *pair(f"{path}/fc1", f"{name}/Dense_0", "kernel", "bias"),
        *pair(f"{path}/fc2", f"{name}/Dense_1", "kernel", "bias"),
    ]


def _current_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _without_class_row(arrays: Arrays, hints: Hints) -> Arrays:
    """Adds the row of positions of the class token to the token, or drops it without a token.

    Only old files have this row. Raises ValueError where the number of rows leaves it open.
    """
    table, embedding = arrays.get(_POSITION), arrays.get("params/embedding/kernel")
    if table is None or table.ndim != 3 or embedding is None or embedding.ndim != 4:
        return arrays
    token, count = "params/cls" in arrays, table.shape[1]
    readings = [
        grids.Reading(count, square="released" if token else "always"),
        grids.Reading(count - 1, 1),
    ]
    _, rows = grids.choose(readings, hints, pixels=embedding.shape[:2])
    if not rows:
        return arrays
    folded = {_POSITION: table[:, 1:]}
    if token:
        folded["params/cls"] = arrays["params/cls"] + table[:, :1]
    return arrays | folded


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    numerics=numerics,
    notes=notes,
    beside=config.of_vit,
)
