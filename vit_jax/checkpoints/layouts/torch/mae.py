"""The .pth layout of facebookresearch/mae: encoders, masked autoencoders and fine-tuned models.

A model from linear probing has a BatchNorm without weights before the head: reading folds it into
the head.
"""

from collections.abc import Mapping

import numpy as np

from vit_jax.checkpoints.layouts.hints import Hints, released
from vit_jax.checkpoints.layouts.layout import Layout, present
from vit_jax.checkpoints.layouts.table import VITS, Arrays, Entry
from vit_jax.checkpoints.layouts.timm import config
from vit_jax.checkpoints.layouts.torch import deit, names
from vit_jax.models import interpolation
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing

_PROBE, _PROBE_EPS = "head.0.running_mean", 1e-6


def recognises(arrays: Mapping[str, np.ndarray]) -> bool:
    """Requires a decoder, a norm after the pool, or no plain head (none, or a probe's)."""
    others = names.is_beit(arrays) or "blocks.0.gamma_1" in arrays
    if not names.is_plain(arrays) or others:
        return False
    headless = "head.weight" not in arrays and "dist_token" not in arrays
    return headless or "fc_norm.weight" in arrays or "decoder_embed.weight" in arrays


def canonical(arrays: Mapping[str, np.ndarray], hints: Hints) -> Arrays:
    """The parameters without buffers; the two layers of a linear probe become one head."""
    arrays = dict(arrays)
    if _PROBE in arrays:
        mean, variance = (arrays.pop(f"head.0.running_{n}") for n in ("mean", "var"))
        arrays.pop("head.0.num_batches_tracked", None)
        weight, bias = (arrays.pop(f"head.1.{n}").astype(np.float64) for n in ("weight", "bias"))
        weight = weight / np.sqrt(variance.astype(np.float64) + _PROBE_EPS)
        arrays["head.weight"] = weight.astype(np.float32)
        arrays["head.bias"] = (bias - weight @ mean).astype(np.float32)
    return deit.canonical(arrays, hints)


def entries(options: EncoderOptions) -> list[Entry]:
    """The table of entries of a model. Raises ValueError where the layout cannot hold it."""
    pooling = (options.pool, options.norm_at)
    if pooling not in (("token", "tokens"), ("gap", "pooled")):
        raise ValueError(
            f"the mae layout cannot hold pool={options.pool!r} with norm_at={options.norm_at!r}"
        )
    if not (options.has_class_token and options.class_position):
        raise ValueError("the mae layout needs a class token with a position")
    return names.entries(options, "mae", holds={"pool", "norm_at", "decoder", "qkv_bias"})


def lacks(options: EncoderOptions) -> tuple[str, ...]:
    """Parts of the model that the original code does not have."""
    decoder = options.decoder is not None
    return present(
        {
            "position='none'": options.position == "none",
            "decoder with qkv_bias=False": decoder and not options.qkv_bias,
            "decoder for images that are not square": decoder and len({*options.grid}) > 1,
        }
    )


def preprocessing(options: EncoderOptions, hints: Hints) -> Preprocessing:
    """As the original code evaluates: images of more than 224 pixels are not cropped."""
    crop_pct = 1.0 if min(options.image_size) > 224 else 0.875
    return released(
        options.image_size,
        hints,
        crop_pct=crop_pct,
        interpolation="bicubic_antialias",
        **names.IMAGENET,
    )


def assumptions(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    sure = options.decoder is not None
    return names.assumptions(options, preprocessing, hints, family="MAE", sure=sure)


LAYOUT = Layout(
    models=VITS,
    recognises=recognises,
    canonical=canonical,
    infer=deit.infer,
    entries=entries,
    preprocessing=preprocessing,
    resize=lambda options: interpolation.OF_DEIT,
    numerics=names.numerics,
    lacks=lacks,
    constants=names.constants,
    assumptions=assumptions,
    beside=config.of_vit,
    formats=(".pth", ".safetensors"),
    torch_key="model",
)
