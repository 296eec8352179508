"""timm's RegNetY, `regnety_*`: with its running averages."""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import (
    Hints,
    assumed_pixels,
    nominal_size,
    refuse_arguments,
    released,
)
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.resnet import hwio_to_oihw, oihw_to_hwio
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.checkpoints.layouts.timm import batch_norm
from vit_jax.checkpoints.layouts.torch import linear
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.regnet import RegNetOptions

_PUBLISHED = 0.25  # channels of squeezes per input
_FIRST = "s1.b1.conv2.conv.weight"


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """RegNetY alone: RegNetX has no squeeze-and-excitation."""
    needed = ("stem.conv.weight", "stem.bn.running_mean", _FIRST, "s1.b1.se.fc1.weight")
    return all(name in arrays for name in needed)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    del hints
    return batch_norm.without_counts(arrays)


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> RegNetOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    refuse_arguments(hints, linear_out=(False,), downsample=("conv1x1",))
    shapes = {name: array.shape for name, array in arrays.items()}
    found = [re.match(r"s(\d+)\.b(\d+)\.conv2\.conv\.weight$", name) for name in shapes]
    blocks = [(int(match[1]), int(match[2])) for match in found if match]
    stages = sorted({stage for stage, _ in blocks})
    if stages != list(range(1, len(stages) + 1)):
        raise ValueError(f"the RegNet's stages are {stages}: some are missing")
    first = [f"s{stage}.b1.conv2.conv.weight" for stage in stages]
    return RegNetOptions(
        image_size=nominal_size(hints) or (224, 224),
        channels=shapes["stem.conv.weight"][1],
        num_classes=shapes.get("head.fc.weight", (0,))[0],
        stem_width=shapes["stem.conv.weight"][0],
        widths=tuple(shapes[name][0] for name in first),
        depths=tuple(max(b for s, b in blocks if s == stage) for stage in stages),
        group_width=max(shapes[name][1] for name in first),  # a narrow stage has one group
        squeeze=_squeeze(shapes, blocks),
    )


def _squeeze(shapes: Mapping[str, tuple[int, ...]], blocks: list[tuple[int, int]]) -> float:
    """The number whose products with the inputs of all blocks round to their channels.

    Several numbers may; it is the published one, or else the shortest.
    """
    pairs = [
        (shapes[f"s{s}.b{b}.conv1.conv.weight"][1], shapes[f"s{s}.b{b}.se.fc1.weight"][0])
        for s, b in blocks
    ]
    low = max((squeezed - 0.5) / inputs for inputs, squeezed in pairs)
    high = min((squeezed + 0.5) / inputs for inputs, squeezed in pairs)
    for ratio in (_PUBLISHED, *(round((low + high) / 2, digits) for digits in range(1, 17))):
        if all(round(inputs * ratio) == squeezed for inputs, squeezed in pairs):
            return ratio
    raise ValueError(
        "the channels of squeeze and excitation are no common share of the inputs of the blocks:"
        f" {', '.join(f'{squeezed} of {inputs}' for inputs, squeezed in pairs[:4])}, ..."
    )


def preprocessing(options: RegNetOptions, hints: Hints) -> Preprocessing:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return released(
        options.image_size, hints, interpolation="bicubic_antialias", mean=mean, std=std
    )


def entries(options: RegNetOptions) -> list[Entry]:
    """The table of entries of a model."""
    table = _conv("stem", "stem")
    for stage, depth in enumerate(options.depths, 1):
        for block in range(1, depth + 1):
            ours, theirs = f"stage{stage}/block{block}", f"s{stage}.b{block}"
            for name in ("conv1", "conv2", "conv3"):
                table += _conv(f"{ours}/{name}", f"{theirs}.{name}")
            table += _linear(f"{ours}/reduce", f"{theirs}.se.fc1")
            table += _linear(f"{ours}/expand", f"{theirs}.se.fc2")
            if block == 1:
                table += _conv(f"{ours}/proj", f"{theirs}.downsample")
    if options.num_classes:
        table += linear("head", "head.fc")
    return table


def _conv(path: str, name: str) -> list[Entry]:
    return batch_norm.conv(path, f"{name}.conv", f"{name}.bn")


def _linear(path: str, name: str) -> list[Entry]:
    """A 1x1 convolution of one pixel."""
    kernel = Entry(
        f"{path}/kernel",
        (f"{name}.weight",),
        lambda a: oihw_to_hwio(a)[0, 0],
        lambda a: hwio_to_oihw(a[None, None]),
    )
    return [kernel, Entry(f"{path}/bias", (f"{name}.bias",))]


LAYOUT = Layout(
    models=(RegNetOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    assumptions=assumed_pixels,
    formats=(".safetensors", ".pth"),
    read_only=True,
)
