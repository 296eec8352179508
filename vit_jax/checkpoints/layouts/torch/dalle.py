"""The discrete VAE of DALL-E: its encoder alone, or encoder and decoder under these prefixes.

The released `encoder.pkl` is a pickled module, which is read as data. The `decoder.pkl` is another
file; to read both, save the state dicts of both together, with the prefixes `encoder.` and
`decoder.`.
"""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, nominal_size, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.resnet import hwio_to_oihw, oihw_to_hwio
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.dvae import MEAN, MOST_GROUPS, STD, DVAEOptions
from vit_jax.models.preprocessing import Preprocessing

_FIRST, _LAST = "blocks.input.w", "blocks.output.conv.w"
_GRID = 14  # rows and columns of visual tokens for BEiT at 224 pixels


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    return any(f"{prefix}{_FIRST}" in arrays for prefix in ("", "encoder."))


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """All names with a prefix: an encoder that was saved alone has none."""
    del hints
    alone = _FIRST in arrays
    return {f"encoder.{name}" if alone else name: array for name, array in arrays.items()}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> DVAEOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    shapes = {name: array.shape for name, array in arrays.items()}
    first, last = (shapes.get(f"encoder.{name}", ()) for name in (_FIRST, _LAST))
    if first[2:] == (1, 1):
        raise ValueError(
            "it is the decoder of a discrete VAE alone: name the encoder, or save both together"
        )
    found = [re.match(r"encoder\.blocks\.group_(\d+)\.block_(\d+)\.", name) for name in shapes]
    blocks = [(int(match[1]), int(match[2])) for match in found if match]
    if len(first) != 4 or not last or not blocks:
        raise ValueError("not a discrete VAE of DALL-E: its encoder lacks layers")
    decoder, groups = shapes.get(f"decoder.{_FIRST}", ()), max(blocks)[0]
    options = DVAEOptions(
        image_size=(_GRID * 2 ** (min(groups, MOST_GROUPS) - 1),) * 2,
        channels=first[1],
        hidden=first[0],
        groups=groups,
        blocks=max(block for _, block in blocks),
        vocabulary=last[0],
        code_width=decoder[0] if decoder else DVAEOptions.code_width,
        reconstructs=bool(decoder),
    )
    size = hints.wanted_size or nominal_size(hints)
    return options.changed(image_size=size) if size else options


def preprocessing(options: DVAEOptions, hints: Hints) -> Preprocessing:
    found = released(
        options.image_size, hints, interpolation="lanczos_antialias", mean=MEAN, std=STD
    )
    return found.for_channels(options.channels)


def entries(options: DVAEOptions) -> list[Entry]:
    """The table of entries of a model."""
    table = _network("encoder", options)
    return table + (_network("decoder", options) if options.reconstructs else [])


def _network(part: str, options: DVAEOptions) -> list[Entry]:
    names = {"input": "input", "output": "output.conv"}
    for group in range(1, options.groups + 1):
        for block in range(1, options.blocks + 1):
            ours, theirs = f"group{group}/block{block}", f"group_{group}.block_{block}"
            names |= {f"{ours}/conv{n}": f"{theirs}.res_path.conv_{n}" for n in range(1, 5)}
            if block == 1 and _widens(part, group, options):
                names[f"{ours}/proj"] = f"{theirs}.id_path"
    return [
        entry
        for path, name in names.items()
        for entry in (
            Entry(
                f"{part}/{path}/kernel",
                (f"{part}.blocks.{name}.w",),
                oihw_to_hwio,
                hwio_to_oihw,
            ),
            Entry(f"{part}/{path}/bias", (f"{part}.blocks.{name}.b",)),
        )
    ]


def _widens(part: str, group: int, options: DVAEOptions) -> bool:
    """Whether the first block of a group changes the number of channels."""
    if group > 1:
        return True
    return part == "decoder" and options.code_width != options.hidden * options.stride


LAYOUT = Layout(
    models=(DVAEOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    assumptions=assumed_pixels,
    formats=(".safetensors", ".pth"),
)
