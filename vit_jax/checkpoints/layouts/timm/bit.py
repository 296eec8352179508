"""timm's BiT ResNets, `resnetv2_*_bit`, which are pre-activation ResNets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints.layouts.hints import (
    Hints,
    assumed_pixels,
    nominal_size,
    refuse_arguments,
    released,
)
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.resnet import (
    hwio_to_oihw,
    infer_stem,
    of_timm,
    oihw_to_hwio,
    stem_entries,
    with_numerics,
)
from vit_jax.checkpoints.layouts.table import Entry
from vit_jax.checkpoints.layouts.timm import config, origin
from vit_jax.models.bit import RESNET_V2, BiTOptions
from vit_jax.models.preprocessing import Preprocessing

_SPELLING = of_timm("")
_NUMERICS = dataclasses.replace(RESNET_V2, std_eps=1e-8, pool_padding="zero")


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Excludes ResNets with batch norm, whose statistics are in the file."""
    first = _SPELLING.unit.format(b=0, u=0)
    needed = (_SPELLING.root, f"{first}norm3.weight", f"{first}conv3.weight", "norm.weight")
    return all(name in arrays for name in needed) and "norm.running_mean" not in arrays


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> BiTOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    refuse_arguments(hints, stem_type=("fixed",), avg_down=(False,))
    shapes = {name: array.shape for name, array in arrays.items()}
    return BiTOptions(
        image_size=nominal_size(hints) or (224, 224),
        stem=infer_stem(shapes, _SPELLING, numerics=_NUMERICS),
        channels=shapes[_SPELLING.root][1],
        num_classes=shapes.get("head.fc.weight", (0,))[0],
    )


def preprocessing(options: BiTOptions, hints: Hints) -> Preprocessing:
    return released(options.image_size, hints, interpolation="bilinear_antialias")


def numerics(options: BiTOptions) -> dict[str, Any]:
    """The fields of the options that readers of this layout assume."""
    # `preactivation` is kept, so that `entries` can refuse post-activation.
    return with_numerics(options.stem, _NUMERICS, kept=("preactivation",))


def entries(options: BiTOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    if not options.stem.preactivation:
        raise ValueError("the timm layout cannot hold a ResNet with post-activation")
    table = stem_entries(options.stem, _SPELLING)
    if options.num_classes:  # a 1x1 convolution
        kernel = Entry(
            "head/kernel",
            ("head.fc.weight",),
            lambda a: oihw_to_hwio(a)[0, 0],
            lambda a: hwio_to_oihw(a[None, None]),
        )
        table += [kernel, Entry("head/bias", ("head.fc.bias",))]
    return table


LAYOUT = Layout(
    models=(BiTOptions,),
    recognises=recognises,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    numerics=numerics,
    assumptions=assumed_pixels,
    beside=config.of_bit,
    original=origin.bit,
    formats=(".safetensors", ".pth"),
    folders="also",
)
