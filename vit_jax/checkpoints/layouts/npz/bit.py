"""The .npz layouts of BiT ResNets: big_vision's `bit` (v1) and `bit_paper` (v2), and the paper's.

The files of the paper (google-research/big_transfer) have the v2 with TensorFlow's names. They can
be read; models are written with big_vision's names.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.npz import bare, left_out
from vit_jax.checkpoints.layouts.resnet import NPZ, infer_stem, stem_entries, with_numerics
from vit_jax.checkpoints.layouts.table import Arrays, Entry, pair
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.models.bit import RESNET_V2, BiTOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions

_V1 = dataclasses.replace(
    NPZ,
    root=f"params/{NPZ.root}",
    root_norm=f"params/{NPZ.root_norm}",
    unit=f"params/{NPZ.unit}",
    norm_join=lambda vector: vector.reshape(-1),  # in old files they are (1, 1, 1, C)
)
_V2 = dataclasses.replace(
    _V1,
    root="params/root_block/conv_root/kernel",
    root_norm="",
    unit="params/block{b}/unit{u:02d}/",
    proj_norm="",
    final_norm="params/norm-pre-head",
    norm_split=lambda vector: (vector.reshape(1, 1, 1, -1),),
)

# From the paper's names to big_vision's.
_CONV = r"standardized_conv2d(?:_\d+)?/kernel$"
_PAPER = (
    (rf"^resnet/root_block/{_CONV}", "root_block/conv_root/kernel"),
    (r"^resnet/group_norm/", "norm-pre-head/"),
    (r"^resnet/head/conv2d/", "head/"),
    (rf"^resnet/(block\d+/unit\d+)/a/proj/{_CONV}", r"\1/conv_proj/kernel"),
    (rf"^resnet/(block\d+/unit\d+)/([abc])/{_CONV}", r"\1/conv\2/kernel"),
    (r"^resnet/(block\d+/unit\d+)/([abc])/group_norm/", r"\1/gn\2/"),
    (r"/conva/", "/conv1/"),
    (r"/convb/", "/conv2/"),
    (r"/convc/", "/conv3/"),
    (r"/gna/", "/gn1/"),
    (r"/gnb/", "/gn2/"),
    (r"/gnc/", "/gn3/"),
    (r"/gamma$", "/scale"),
    (r"/beta$", "/bias"),
)


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    if any(re.match(_PAPER[0][0], name) for name in arrays):
        return True
    names = _bare(arrays)
    return "embedding/kernel" not in names and not _ROOTS.isdisjoint(names)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays with big_vision's names under `params/`."""
    del hints  # not needed: the arrays specify everything
    if any(name.startswith("resnet/") for name in arrays):
        arrays = {_big_vision_name(k): v for k, v in arrays.items() if k.startswith("resnet/")}
        head = arrays.get("head/kernel")
        if head is not None and head.ndim == 4:
            arrays["head/kernel"] = head[0, 0]
    return {f"params/{name}": array for name, array in _bare(arrays).items()}


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    return left_out(arrays, roots=_ROOTS)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> BiTOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    del hints  # the arrays specify everything except the image size, which may be any
    shapes = {name: array.shape for name, array in arrays.items()}
    if _V2.root in shapes:
        stem = infer_stem(shapes, _V2, numerics=RESNET_V2)
    else:
        stem = infer_stem(shapes, _V1, numerics=StemOptions())
    return BiTOptions(
        channels=shapes[_V2.root if stem.preactivation else _V1.root][2],
        num_classes=shapes.get("params/head/kernel", (0,))[-1],
        stem=stem,
    )


def preprocessing(options: BiTOptions, hints: Hints) -> Preprocessing:
    return released(options.image_size, hints)


def numerics(options: BiTOptions) -> dict[str, Any]:
    """The fields of the options that readers of this layout assume."""
    fixed = RESNET_V2 if options.stem.preactivation else StemOptions()
    return with_numerics(options.stem, fixed)


def entries(options: BiTOptions) -> list[Entry]:
    """The table of entries of a model."""
    table = stem_entries(options.stem, _V2 if options.stem.preactivation else _V1)
    return table + (pair("head", "params/head", "kernel", "bias") if options.num_classes else [])


_ROOTS = {spelling.root.removeprefix("params/") for spelling in (_V1, _V2)}


def _bare(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return bare(arrays, roots=_ROOTS)


def _big_vision_name(name: str) -> str:
    for pattern, replacement in _PAPER:
        name = re.sub(pattern, replacement, name)
    return name


LAYOUT = Layout(
    models=(BiTOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    numerics=numerics,
    notes=notes,
    beside=config.of_bit,
)
