"""Writes the JSON files beside Hugging Face's weights for transformers to read."""

import math
from typing import Any

from vit_jax.checkpoints.layouts.expects import PILLOW
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}

_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}

# Preprocessing of a family's released models, used where there is no preprocessor_config.json.
_SQUASH = {"crop_pct": 1.0, "fit": "squash"}
_CROP = {"crop_pct": 224 / 256, "interpolation": "bicubic_antialias"}
PREPROCESSING: dict[str, dict[str, Any]] = {
    "vit": {**_SQUASH, "interpolation": "bilinear_antialias"},
    "vit_mae": {**_SQUASH, "interpolation": "bilinear_antialias", **_IMAGENET},
    "vit_hybrid": {"crop_pct": 1.0, "fit": "crop_floor", "interpolation": "bicubic_antialias"},
    "deit": {**_CROP, "fit": "squash", **_IMAGENET},
    "beit": {**_CROP, "fit": "squash"},
    "dinov2": {**_CROP, "fit": "crop_floor", **_IMAGENET},
    "dinov2_with_registers": {**_CROP, "fit": "crop_floor", **_IMAGENET},
    "siglip": {**_SQUASH, "interpolation": "bicubic_antialias"},
    "clip": {"crop_pct": 1.0, "fit": "crop_floor", "interpolation": "bicubic_antialias", **_CLIP},
}

_ACTIVATIONS = {"gelu_erf": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "gelu_quick": "quick_gelu"}
_FILTERS = {name: number for number, name in PILLOW.items()}
_PROCESSORS = {"vit": "ViTImageProcessor", "vit_mae": "ViTImageProcessor"}
_PROCESSORS |= {"deit": "DeiTImageProcessor", "beit": "BeitImageProcessor"}


def config(options: EncoderOptions, family: str, class_names: tuple[str, ...]) -> dict[str, Any]:
    """config.json. Raises ValueError for a model that transformers' families cannot hold."""
    if family not in _PROCESSORS:
        known = ", ".join(_PROCESSORS)
        raise ValueError(f"the hf layout can be written for {known}, but this model is a {family}")
    height, width = options.image_size
    patch = options.patch_size
    if patch[0] != patch[1]:
        raise ValueError(f"the hf layout needs square patches, not {patch[0]}x{patch[1]}")
    _check_grid(options, family)
    _check_pool(options, family)
    fields: dict[str, Any] = {
        "architectures": [_architecture(options, family)],
        "model_type": family,
        "hidden_size": options.width,
        "num_hidden_layers": options.depth,
        "num_attention_heads": options.num_heads,
        "intermediate_size": options.mlp_dim,
        "hidden_act": _ACTIVATIONS[options.activation],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": options.norm_eps,
        "image_size": height if height == width else [height, width],
        "patch_size": patch[0],
        "num_channels": options.channels,
        "qkv_bias": options.qkv_bias,
        "dtype": "float32",
    }
    if options.representation_size:
        fields["pooler_output_size"] = options.representation_size
    if family == "beit":
        fields |= _beit(options)
    if options.decoder:
        fields |= _decoder(options)
    return fields | _labels(options.num_classes, class_names)


def _check_grid(options: EncoderOptions, family: str) -> None:
    """Raises ValueError for parts that transformers uses only with a square grid of patches.

    It resizes the positions and relative biases of BEiT for any other grid, and compares the images
    of a masked autoencoder only if they are square.
    """
    rows, columns = options.grid
    if rows == columns:
        return
    parts = {
        "absolute positions": family == "beit" and options.position != "none",
        "relative biases": family == "beit" and options.relative_bias != "none",
        "masked autoencoder": options.decoder is not None,
    }
    if found := [what for what, present in parts.items() if present]:
        raise ValueError(
            f"transformers cannot hold the {' and the '.join(found)} of a grid of {rows}x{columns}"
            " patches: give a square image_size"
        )


def _check_pool(options: EncoderOptions, family: str) -> None:
    """Raises ValueError where transformers' BEiT would pool another way."""
    pooling = (options.pool, options.norm_at)
    if family == "beit" and pooling not in (("token", "tokens"), ("gap", "pooled")):
        raise ValueError(
            f"transformers' BEiT cannot hold pool={pooling[0]!r} with norm_at={pooling[1]!r}: it"
            " has a class token with a norm before the pool, or an average with a norm after it"
        )


def preprocessor(family: str, preprocessing: Preprocessing) -> dict[str, Any]:
    """preprocessor_config.json, for the family's processor or another one that crops as needed.

    No processor both keeps the aspect ratio and makes images that are not square: such images are
    squashed.
    """
    height, width = preprocessing.image_size
    size = {"height": height, "width": width}
    covering = {k: math.floor(v / preprocessing.crop_pct + 1e-6) for k, v in size.items()}
    crops = preprocessing.crop_pct < 1
    name = _PROCESSORS[family]
    if preprocessing.fit != "squash" and height == width:
        name, crops, covering = "BitImageProcessor", True, {"shortest_edge": covering["height"]}
    elif crops and name == "ViTImageProcessor":  # it cannot crop
        name = "DeiTImageProcessor"
    fields = {
        "image_processor_type": name,
        "do_resize": True,
        "size": covering,
        "resample": _FILTERS.get(preprocessing.interpolation, 2),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocessing.mean),
        "image_std": list(preprocessing.std),
        "do_center_crop": crops,
    }
    return fields | ({"crop_size": size} if crops else {})


def _architecture(options: EncoderOptions, family: str) -> str:
    if options.decoder:
        return "ViTMAEForPreTraining"
    if options.mim_classes:
        return "BeitForMaskedImageModeling"
    if family == "deit" and options.num_classes and options.distillation_head:
        return "DeiTForImageClassificationWithTeacher"
    name = {"vit": "ViT", "vit_mae": "ViTMAE", "deit": "DeiT", "beit": "Beit"}[family]
    return f"{name}ForImageClassification" if options.num_classes else f"{name}Model"


def _beit(options: EncoderOptions) -> dict[str, Any]:
    mim = options.mim_classes > 0  # then the norm is outside the body
    return {
        "use_mask_token": options.mask_token,
        "use_absolute_position_embeddings": options.position != "none",
        "use_relative_position_bias": options.relative_bias == "per_block",
        "use_shared_relative_position_bias": options.relative_bias == "shared",
        "use_mean_pooling": mim and not options.mim_norm or options.norm_at == "pooled",
        "layer_scale_init_value": options.layer_scale,
        **({"vocab_size": options.mim_classes} if mim else {}),
    }


def _decoder(options: EncoderOptions) -> dict[str, Any]:
    decoder = options.decoder
    assert decoder is not None
    return {
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.num_heads,
        "decoder_intermediate_size": decoder.mlp_dim,
    }


def _labels(count: int, names: tuple[str, ...]) -> dict[str, Any]:
    if not count:
        return {}
    names = names or tuple(f"LABEL_{i}" for i in range(count))
    return {
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
