"""Hugging Face's BiT, with and without a head. Read only."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import torch
from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, nominal_size, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.resnet import infer_stem, of_hugging_face, stem_entries
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.bit import RESNET_V2, BiTOptions
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.resnet import StemOptions

_SPELLING = of_hugging_face("bit.")
_DEFAULTS = {"layer_type": "preactivation", "global_padding": None, "output_stride": 32}
_DEFAULTS |= {"embedding_dynamic_padding": False, "hidden_act": "relu", "num_groups": 32}


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Excludes a BiT that is the backbone of another model."""
    return any(name.removeprefix("bit.") == "embedder.convolution.weight" for name in arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays, with the prefix of a model with a head."""
    del hints
    bare = ("embedder.", "encoder.", "norm.")
    return {f"bit.{k}" if k.startswith(bare) else k: v for k, v in arrays.items()}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> BiTOptions:
    """The model of canonical arrays and config.json.

    Raises ValueError where they cannot be a BiT, or config.json has an unsupported option.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    return BiTOptions(
        image_size=nominal_size(hints) or (224, 224),
        stem=infer_stem(shapes, _SPELLING, numerics=_numerics(hints, "bit.norm.weight" in shapes)),
        channels=shapes[_SPELLING.root][1],
        num_classes=shapes.get("classifier.1.weight", (0,))[0],
    )


def preprocessing(options: BiTOptions, hints: Hints) -> Preprocessing:
    fit = "crop_floor"
    return released(
        options.image_size, hints, crop_pct=1.0, interpolation="bicubic_antialias", fit=fit
    )


def entries(options: BiTOptions) -> list[Entry]:
    """The table of entries of a model."""
    table = stem_entries(options.stem, _SPELLING)
    return table + (torch.linear("head", "classifier.1") if options.num_classes else [])


def _numerics(hints: Hints, preactivation: bool) -> StemOptions:
    fields = {k: hints.config.get(k, v) for k, v in _DEFAULTS.items()}
    same = str(fields["global_padding"]).upper() == "SAME"
    # Supported: TensorFlow's "SAME" padding everywhere; or, with pre-activation, fixed padding.
    odd = same != bool(fields["embedding_dynamic_padding"]) or not (same or preactivation)
    if odd or fields["hidden_act"] != "relu" or fields["output_stride"] != 32:
        shown = ", ".join(f"{k}={v!r}" for k, v in fields.items())
        raise ValueError(f"a BiT with {shown} is not supported")
    return dataclasses.replace(
        RESNET_V2,
        preactivation=preactivation,
        std_eps=1e-8,
        groups=hints.config.get("num_groups") or 32,
        padding="same" if same else "explicit",
        pool_padding="zero",
    )


LAYOUT = Layout(
    models=(BiTOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    assumptions=assumed_pixels,
    read_only=True,
)
