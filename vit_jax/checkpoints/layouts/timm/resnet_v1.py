"""ResNets with batch norm, `resnet18` to `resnet152`: the names of timm and of torchvision."""

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
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.checkpoints.layouts.timm import batch_norm, config, origin
from vit_jax.checkpoints.layouts.torch import linear
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.resnet_v1 import ResNetOptions

# Architectures with a blur before each stride, which has no arrays. Only config.json names them.
_ANTI_ALIASED = ("resnetaa", "resnetblur")
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.conv1\.weight$")


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Without squeeze-and-excitation, which adds arrays to every block."""
    needed = ("conv1.weight", "bn1.running_mean", "layer1.0.bn2.running_mean")
    return all(name in arrays for name in needed) and "layer1.0.se.fc1.weight" not in arrays


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> ResNetOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    name = str(hints.config.get("architecture", ""))
    if name.startswith(_ANTI_ALIASED):
        raise ValueError(f"a ResNet with anti-aliasing ({name}) is not supported")
    refuse_arguments(hints, norm_layer=("batchnorm", "batchnorm2d"), block_args=({},))
    shapes = {name: array.shape for name, array in arrays.items()}
    blocks = [tuple(map(int, match.groups())) for name in shapes if (match := _BLOCK.match(name))]
    stages = sorted({stage for stage, _ in blocks})
    if stages != list(range(1, len(stages) + 1)):
        raise ValueError(f"the ResNet's stages are {stages}: some are missing")
    if len(shapes["conv1.weight"]) != 4:
        raise ValueError(f"conv1.weight has shape {shapes['conv1.weight']}, expected 4 axes")
    small = shapes["conv1.weight"][2:] == (3, 3)
    if small:
        hints.notes.append(
            "conv1 has 3x3 weights: assumed a ResNet for small images, with stride 1 in conv1 and"
            " no max-pooling after it"
        )
    return ResNetOptions(
        image_size=nominal_size(hints) or ((32, 32) if small else (224, 224)),
        channels=shapes["conv1.weight"][1],
        num_classes=shapes.get("fc.weight", (0,))[0],
        depths=tuple(1 + max(b for s, b in blocks if s == stage) for stage in stages),
        bottleneck="layer1.0.conv3.weight" in shapes,
        width=shapes["conv1.weight"][0],
        root="cifar" if small else "imagenet",
    )


def preprocessing(options: ResNetOptions, hints: Hints) -> Preprocessing:
    """As torchvision's transforms of its first weights, without files beside the checkpoint."""
    default = {"interpolation": "bilinear_antialias", "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return released(options.image_size, hints, **default)


def entries(options: ResNetOptions) -> list[Entry]:
    """The table of entries of a model."""
    table = batch_norm.conv("stem", "conv1", "bn1")
    inputs = options.width
    for stage, depth in enumerate(options.depths, 1):
        outputs = options.width * 2 ** (stage - 1) * options.expansion
        for block in range(depth):
            ours, theirs = f"stage{stage}/block{block + 1}", f"layer{stage}.{block}"
            for i in range(1, 4 if options.bottleneck else 3):
                table += batch_norm.conv(f"{ours}/conv{i}", f"{theirs}.conv{i}", f"{theirs}.bn{i}")
            if not block and (stage > 1 or inputs != outputs):
                projection = f"{theirs}.downsample"
                table += batch_norm.conv(f"{ours}/proj", f"{projection}.0", f"{projection}.1")
        inputs = outputs
    return table + (linear("head", "fc") if options.num_classes else [])


def _canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    del hints
    return batch_norm.without_counts(arrays)


LAYOUT = Layout(
    models=(ResNetOptions,),
    recognises=recognises,
    canonical=_canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    assumptions=assumed_pixels,
    beside=config.of_resnet,
    lacks=origin.resnet_lacks,
    original=origin.resnet,
    formats=(".safetensors", ".pth"),
    folders="also",
)
