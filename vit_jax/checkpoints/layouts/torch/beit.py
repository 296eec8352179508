"""The .pth layout of microsoft/unilm: BEiT and BEiT v2, pretrained or fine-tuned."""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, assumed_pixels, released
from vit_jax.checkpoints.layouts.layout import Layout, present
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.checkpoints.layouts.torch import names, sizes
from vit_jax.models import interpolation, positions
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_SCALES = ("gamma_1", "gamma_2")
_CLASS_PRETRAINING = "cls_pt_"
_HOLDS = {"pool", "norm_at", "relative_bias", "qkv_bias", "key_bias", "layer_scale", "mask_token",
          "mim_classes"}  # fmt: skip


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    # If queries and values have no bias, only the LayerScale distinguishes it from MAE.
    scaled = "fc_norm.weight" in arrays and "blocks.0.gamma_1" in arrays
    return names.is_plain(arrays) and (names.is_beit(arrays) or scaled)


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters without the index of relative offsets.

    The blocks that pretrain BEiT v2's class token are left out: no output of the model needs them.
    """
    del hints
    kept = {k: v for k, v in arrays.items() if not k.startswith(_CLASS_PRETRAINING)}
    return names.canonical(kept, scales=_SCALES)


def notes(arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    parts = sorted({k.split(".")[0] for k in arrays if k.startswith(_CLASS_PRETRAINING)})
    return (f"left out: {', '.join(parts)}",) if parts else ()


def infer(arrays: Mapping[str, np.ndarray], hints: Hints) -> EncoderOptions:
    """The model of canonical arrays. Raises ValueError where they cannot be one."""
    return sizes.infer(arrays, hints, scale=_SCALES[0])


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    if options.qkv_bias and options.key_bias:
        raise ValueError("the beit layout cannot hold key_bias=True")
    if not options.has_class_token or options.position != "none" and not options.class_position:
        raise ValueError(
            "the beit layout needs a class token, with a position if the patches have positions"
        )
    return names.entries(options, "beit", holds=_HOLDS, scales=_SCALES)


def constants(options: EncoderOptions) -> Arrays:
    """Fixed positions, and the index of relative offsets that the original saves per table."""
    index = positions.relative_index(options.grid).astype(np.int64)
    fixed = names.constants(options)
    if options.relative_bias == "shared":
        return fixed | {"rel_pos_bias.relative_position_index": index}
    if options.relative_bias == "none":
        return fixed
    return fixed | {f"blocks.{i}.attn.relative_position_index": index for i in range(options.depth)}


def lacks(options: EncoderOptions) -> tuple[str, ...]:
    """Parts of the model that the original code does not have."""
    return present({"mask_token in a classifier": options.mask_token and not options.mim_classes})


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As timm evaluates; from 384 pixels on, neither it nor the original code crops."""
    crop_pct = 1.0 if min(options.image_size) >= 384 else 0.9
    return released(options.image_size, hints, crop_pct=crop_pct, interpolation="bicubic_antialias")


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: interpolation.OF_DEIT,
    numerics=names.numerics_with_pool,
    lacks=lacks,
    constants=constants,
    notes=notes,
    assumptions=assumed_pixels,
    beside=config.of_vit,
    formats=(".pth", ".safetensors"),
    torch_key="model",
)
