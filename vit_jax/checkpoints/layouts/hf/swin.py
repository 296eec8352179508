"""Hugging Face's Swin, with the names of the 4.x and 5.x releases. Read only."""

import re
from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts import swin, torch
from vit_jax.checkpoints.layouts.hf.infer import check_no_pixels
from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, released
from vit_jax.checkpoints.layouts.layout import Layout
from vit_jax.checkpoints.layouts.table import Arrays, Entry
from vit_jax.models.interpolation import Methods
from vit_jax.models.layers import Activation
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.swin import SwinOptions


def _qkv(path: str, block: str, *, heads: int, bias: bool) -> list[Entry]:
    names = [f"{block}attention.self.{part}" for part in ("query", "key", "value")]
    return torch.separate_qkv(path, names, heads=heads, bias=bias)


_SPELLING = swin.Spelling(
    embedding="swin.embeddings.patch_embeddings.projection",
    embedding_norm="swin.embeddings.norm",
    block="swin.encoder.layers.{s}.blocks.{i}.",
    norm1="layernorm_before",
    norm2="layernorm_after",
    table="attention.self.relative_position_bias_table",
    out="attention.output.dense",
    fc1="intermediate.dense",
    fc2="output.dense",
    merge="swin.encoder.layers.{s}.downsample",
    merge_from=1,
    norm="swin.layernorm",
    head="classifier",
    position="swin.embeddings.position_embeddings",
    qkv=_qkv,
    bias="attention.self.query.bias",
)

# Names of 5.x (pattern) -> names of 4.x, which files of 5.x may have too.
_RENAMES = (
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^(?=embeddings\.|encoder\.|layernorm\.)", "swin."),
)
_GELUS: dict[str, Activation] = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_GELUS |= {"gelu_fast": "gelu_tanh", "gelu_python": "gelu_erf", "quick_gelu": "gelu_quick"}


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    pattern = re.compile(
        r"^(swin\.)?encoder\.layers\.0\.blocks\.0\..*relative_position_bias_table$"
    )
    return any(pattern.match(name) for name in arrays)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The same arrays with the names of the 4.x releases.

    Buffers are left out, and the mask token, which is used only in pretraining.
    """
    del hints
    unused = ("relative_position_index", "embeddings.mask_token")
    return {_name_of_4(k): v for k, v in arrays.items() if not k.endswith(unused)}


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> SwinOptions:
    """The model of canonical arrays and config.json.

    Raises ValueError where they cannot be a Swin, or config.json has an unsupported option.
    """
    check_no_pixels(arrays)
    activation = hints.config.get("hidden_act", "gelu")
    if activation not in _GELUS:
        raise ValueError(f"hidden_act is {activation!r}: known are {', '.join(_GELUS)}")
    return swin.infer(
        {name: array.shape for name, array in arrays.items()},
        _SPELLING,
        hints,
        padding="before_shift",
        activation=_GELUS[activation],
        norm_eps=float(hints.config.get("layer_norm_eps") or 1e-5),
    )


def preprocessing(options: SwinOptions, hints: Hints) -> Preprocessing:
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    return released(
        options.image_size,
        hints,
        crop_pct=1.0,
        interpolation="bicubic_antialias",
        fit="squash",
        mean=mean,
        std=std,
    )


def entries(options: SwinOptions) -> list[Entry]:
    """The table of entries of a model."""
    return swin.entries(options, _SPELLING)


def _name_of_4(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


LAYOUT = Layout(
    models=(SwinOptions,),
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: Methods(
        position="bicubic", relative="bicubic", patch="bicubic_antialias"
    ),
    assumptions=assumed_pixels,
    read_only=True,
)
