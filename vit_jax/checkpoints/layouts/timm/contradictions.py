"""Messages where timm's config.json is for another model than the arrays beside it.

The arrays decide: a config.json may have stayed in a folder when its weights were replaced.
"""

import re
from typing import Any

from vit_jax.checkpoints.layouts import expects
from vit_jax.checkpoints.layouts.hints import Hints
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.models.bit import BiTOptions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.regnet import RegNetOptions
from vit_jax.models.resnet_v1 import ResNetOptions
from vit_jax.models.swin import SwinOptions
from vit_jax.models.zoo import Options

# How the names of timm's architectures begin, and the options of such a model.
_KINDS: dict[str, type] = {
    r"vit_|deit3?_|beit(v2)?_|flexivit_": EncoderOptions,
    r"swin_": SwinOptions,
    r"resnetv2_": BiTOptions,
    r"resnet\d+": ResNetOptions,
    r"regnet[xy]_": RegNetOptions,
}
# Arguments that the arrays show, except those that `infer` takes from config.json.
_SHOWN = {"embed_dim", "depth", "depths", "layers", "patch_size", "in_chans", "qkv_bias",
          "class_token", "reg_tokens"}  # fmt: skip
_LARGEST_RATIO = 1e6  # a larger one is no hidden width


def notes(options: Options, hints: Hints) -> tuple[str, ...]:
    """A message on the architecture and the arguments that do not fit the model that was read."""
    name = hints.config.get("architecture")
    kinds = [
        kind for part, kind in _KINDS.items() if isinstance(name, str) and re.match(part, name)
    ]
    if kinds and not isinstance(options, kinds[0]):
        return (f"config.json is for a {name}, but the arrays are those of a {options.kind}",)
    ours = _arguments(options)
    given = {k: v for k, v in hints.model_args.items() if k in _SHOWN and k in ours}
    classes = hints.config.get("num_classes")
    if name and classes is not None:  # Hugging Face's config may have this field without a head
        ours["num_classes"] = options.num_classes
        given["num_classes"] = classes
    share: Any = hints.model_args.get("mlp_ratio")
    if isinstance(options, EncoderOptions) and expects.fits_float(share) and share < _LARGEST_RATIO:
        # timm rounds the hidden width down
        ours["hidden width"] = int(ours["mlp_ratio"] * options.width)
        given["hidden width"] = int(share * options.width)
    wrong = [
        f"{k} {value!r}, but the arrays have {ours[k]!r}"
        for k, value in given.items()
        if value is not None and _plain(value) != _plain(ours[k])
    ]
    return (f"config.json is for another model: it has {'; '.join(wrong)}",) if wrong else ()


def _arguments(options: Options) -> dict[str, Any]:
    if isinstance(options, EncoderOptions):
        return config.vit_arguments(options)
    if isinstance(options, SwinOptions):
        return config.swin_arguments(options)
    if isinstance(options, ResNetOptions):
        return {"in_chans": options.channels, "layers": list(options.depths)}
    return {"in_chans": getattr(options, "channels", None)}


def _plain(value: Any) -> Any:
    """A size as timm understands it: one number is both sides."""
    pair = isinstance(value, list) and len(value) == 2 and value[0] == value[1]
    return value[0] if pair else value
