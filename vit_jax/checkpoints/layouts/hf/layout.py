"""Folders of Hugging Face's transformers: weights and config.json.

Reads ViT, DeiT, BEiT, ViTMAE, ViTHybrid, DINOv2 and the vision towers of CLIP and SigLIP, with the
names of every release. Writes ViT, DeiT, BEiT and ViTMAE, with a config.json for transformers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.checkpoints import wrappers
from vit_jax.checkpoints.layouts.hf import configs, names
from vit_jax.checkpoints.layouts.hf import entries as entries_lib
from vit_jax.checkpoints.layouts.hf import infer as infer_lib
from vit_jax.checkpoints.layouts.hints import Hints, assumed, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import VITS, Arrays
from vit_jax.models.interpolation import Methods
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    flax = any(name.endswith(".kernel") for name in arrays)
    return not flax and bool(names.family(arrays))


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    del hints
    if not names.family(arrays):
        raise ValueError("not a supported vision model of Hugging Face")
    return names.canonical(arrays)


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Messages on a text tower, which is left out, and on CLIP's projection."""
    out = names.left_out(arrays)
    messages = [f"left out: {wrappers.left_out(out)}"] if out else []
    if names.PROJECTION in arrays:
        messages.append("visual_projection is read as the head: it gives embeddings, not classes")
    return tuple(messages)


def resize(options: EncoderOptions) -> Methods:
    """As transformers resizes: only DINOv2 with registers antialiases positions."""
    if options.registers:
        return Methods(position="bicubic_antialias", patch="bicubic_antialias")
    return Methods(
        position="bicubic", relative="bilinear", decoder="flat", patch="bicubic_antialias"
    )


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    family = entries_lib.family(options)
    defaults = configs.PREPROCESSING[family]
    if family == "beit" and min(options.image_size) >= 384:  # as in the files of those models
        defaults = defaults | {"crop_pct": 1.0}
    return released(options.image_size, hints, **defaults)


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    """A message on assumed values: without a config.json, numerics and heads are among them."""
    fields: dict[str, Any] = {}
    if not (hints.config.get("model_type") or hints.config.get("vision_config")):
        fields = {"norm_eps": options.norm_eps}
        if options.mlp == "plain":
            fields["activation"] = options.activation
        if not hints.num_heads and options.relative_bias == "none":
            fields["num_heads"] = options.num_heads
    return assumed(preprocessing, hints, **fields)


def beside(
    options: EncoderOptions, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """The content of the JSON files that transformers needs beside the weights, by file name."""
    family = entries_lib.family(options)
    return {
        "config.json": configs.config(options, family, class_names),
        "preprocessor_config.json": configs.preprocessor(family, preprocessing),
    }


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer_lib.infer,
    entries=entries_lib.entries,
    preprocessing=preprocessing,
    resize=resize,
    notes=notes,
    assumptions=assumptions,
    beside=beside,
    formats=(".safetensors", ".bin"),
    folders="always",
)
