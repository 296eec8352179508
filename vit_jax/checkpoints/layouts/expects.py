"""Reads the preprocessing of a released model from the JSON files beside its weights.

Hugging Face's preprocessor_config.json may leave out values that are the defaults of its class of
image processors; timm's pretrained_cfg is complete.
"""

import sys
from collections.abc import Mapping
from typing import Any

from vit_jax.models import limits
from vit_jax.models.preprocessing import Fit, Interpolation

_Fields = dict[str, Any]  # fields of `Preprocessing`

_TIMM_INTERPOLATIONS: dict[str, Interpolation] = {
    "bicubic": "bicubic_antialias",
    "bilinear": "bilinear_antialias",
    "lanczos": "lanczos_antialias",
    "nearest": "nearest",
    "random": "bilinear_antialias",  # "random" is for training
}
_FITS: dict[str, Fit] = {"center": "crop", "squash": "squash"}

# Pillow's numbers of resize filters.
PILLOW: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos_antialias",
    2: "bilinear_antialias",
    3: "bicubic_antialias",
}

# Defaults of Hugging Face's classes of processors: Pillow's number of the filter, whether they crop
# the centre, and the fit if `size` is one number ("squash": both sides, "crop_floor": the shorter).
_PROCESSORS: dict[str, tuple[int, bool, Fit]] = {
    "ViT": (2, False, "squash"),
    "DeiT": (3, True, "squash"),
    "Beit": (3, True, "squash"),
    "Siglip": (3, False, "squash"),
    "Bit": (3, True, "crop_floor"),
    "CLIP": (3, True, "crop_floor"),
    "ViTHybrid": (3, True, "crop_floor"),
    "ConvNext": (2, False, "crop_floor"),
}
_PROCESSOR_OF = {  # model_type of config.json -> processor
    **{"vit": "ViT", "vit_mae": "ViT", "swin": "ViT", "deit": "DeiT", "beit": "Beit"},
    **{"clip": "CLIP", "clip_vision_model": "CLIP"},
    **{"siglip": "Siglip", "siglip_vision_model": "Siglip", "vit-hybrid": "ViTHybrid"},
    **{"bit": "Bit", "dinov2": "Bit", "dinov2_with_registers": "Bit"},
}
_LEAST = {"mean": -float("inf"), "std": 0.0}  # the values of a channel must be larger
_CONVNEXT_SQUASHES = 384  # ConvNext's processor squashes images of at least this size


def read(preprocessor: Mapping[str, Any], config: Mapping[str, Any]) -> _Fields:
    """The fields of `Preprocessing` that preprocessor_config.json, or else config.json, specifies.

    Raises ValueError for a value that `Preprocessing` cannot express.
    """
    if preprocessor:
        return _from_processor(preprocessor, config)
    return _from_timm(config.get("pretrained_cfg") or config)


def _from_timm(config: Mapping[str, Any]) -> _Fields:
    fields: _Fields = {
        name: _per_channel(f"pretrained_cfg has {name}", config[name], _channels(config), least)
        for name, least in _LEAST.items()
        if config.get(name)
    }
    if share := config.get("crop_pct"):
        share = share if type(share) in (int, float) else 0
        fields["crop_pct"] = _crop_pct(share, f"pretrained_cfg has crop_pct {config['crop_pct']!r}")
    for field, theirs, known in (
        ("interpolation", "interpolation", _TIMM_INTERPOLATIONS),
        ("fit", "crop_mode", _FITS),
    ):
        if name := config.get(theirs):
            if not isinstance(name, str) or name not in known:
                _refuse(f"pretrained_cfg has {theirs} {name!r}: known are {', '.join(known)}")
            fields[field] = known[name]
    return fields


def _from_processor(file: Mapping[str, Any], config: Mapping[str, Any]) -> _Fields:
    """Hugging Face's steps: resize, crop, times `rescale_factor`, minus mean, divided by std."""
    for name, value in (("do_resize", False), ("rescale_offset", True), ("do_pad", True)):
        if file.get(name) is value:
            _refuse(f"preprocessor_config.json has {name} {str(value).lower()}")
    return _resizing(file, config) | _values(file, _channels(config))


def _values(file: Mapping[str, Any], channels: int) -> _Fields:
    """Mean and standard deviation, converted from the processor's value range to [0, 1]."""
    factor = 255.0
    if file.get("do_rescale", True):
        factor *= _number("rescale_factor", file.get("rescale_factor", 1 / 255))
    if abs(factor - 1) < 1e-6:
        factor = 1.0
    if file.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1 / factor,) * 3}
    fields = {}
    for field, least in _LEAST.items():
        if values := file.get(f"image_{field}"):
            what = f"preprocessor_config.json has image_{field}"
            numbers = _per_channel(what, values, channels, least)
            fields[field] = tuple(number / factor for number in numbers)
    if factor != 1 and len(fields) < 2:
        _refuse("preprocessor_config.json has a rescale_factor without image_mean and image_std")
    return fields


def _resizing(file: Mapping[str, Any], config: Mapping[str, Any]) -> _Fields:
    filter_, crops, fit = _PROCESSORS.get(
        _processor(file, config), (None, "crop_size" in file, None)
    )
    fields: _Fields = {}
    number = file.get("resample", filter_)
    if number is not None:
        if not isinstance(number, int) or number not in PILLOW:
            known = ", ".join(map(str, PILLOW))
            _refuse(f"preprocessor_config.json has resample {number!r}: known are {known}")
        fields["interpolation"] = PILLOW[number]
    if file.get("size") is None:
        return fields
    size, fit = _size("size", file["size"], fit or "squash")
    fields["fit"] = fit
    if "crop_pct" in file:  # ConvNext's processor, whose `size` is that of the crop
        squashes = min(size) >= _CONVNEXT_SQUASHES
        share = 1.0 if squashes else _number("crop_pct", file["crop_pct"] or 224 / 256)
        fields["fit"] = "squash" if squashes else "crop_floor"
        what = f"preprocessor_config.json has crop_pct {share}"
        return fields | {"crop_pct": _crop_pct(share, what)}
    if not file.get("do_center_crop", crops) or file.get("crop_size") is None:
        return fields | {"crop_pct": 1.0, "fit": _uncropped_fit(file["size"], fit)}
    crop, _ = _size("crop_size", file["crop_size"], "squash")
    what = f"preprocessor_config.json has size {file['size']} and crop_size {file['crop_size']}"
    # Sides were rounded to pixels, so their aspect ratios may differ a little.
    if fit == "squash" and not -crop[0] < crop[0] * size[1] - crop[1] * size[0] < crop[1]:
        _refuse(f"{what} with different aspect ratios")
    # If `size` is that of the shorter side, it has to hold the larger side of the crop.
    return fields | {
        "crop_pct": _crop_pct((max(crop) if fit == "crop_floor" else crop[0]) / size[0], what)
    }


def _processor(file: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The name of the processor class, without suffixes such as ImageProcessorFast."""
    name = str(file.get("image_processor_type") or file.get("feature_extractor_type") or "")
    for end in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(end)
    return name or _PROCESSOR_OF.get(str(config.get("model_type", "")), "")


def _size(name: str, size: Any, fit: Fit) -> tuple[tuple[int, int], Fit]:
    """(height, width) and a fit: "squash" if both sides are given, "crop_floor" if the shorter."""
    if isinstance(size, Mapping):
        sides: tuple[Any, ...] = (size.get("height"), size.get("width"))
        if set(size) == {"shortest_edge"}:
            sides, fit = (size["shortest_edge"],) * 2, "crop_floor"
        elif set(size) == {"height", "width"}:
            fit = "squash"
    elif isinstance(size, list | tuple) and len(size) == 2:
        sides, fit = tuple(size), "squash"
    else:
        sides = (size, size)
    if not all(type(side) is int and 0 < side <= limits.MOST_PIXELS for side in sides):
        _refuse(f"preprocessor_config.json has {name} {size!r}")
    return (sides[0], sides[1]), fit


def _number(name: str, value: Any) -> float:
    if not (fits_float(value) and value > 0):
        _refuse(f"preprocessor_config.json has {name} {value!r}")
    return float(value)


def _uncropped_fit(size: Any, fit: Fit) -> Fit:
    """The fit without a crop: all images have the same size only if both sides are given."""
    if fit == "crop_floor":
        _refuse(f"preprocessor_config.json has size {size!r} and no crop, so image sizes vary")
    return fit


def _crop_pct(share: float, what: str) -> float:
    if not 0 < share <= 1:
        _refuse(f"{what}: the crop must be within the resized image")
    return share


def _channels(config: Mapping[str, Any]) -> int:
    """The number of channels in Hugging Face's or timm's config; 3 where it has none."""
    size = config.get("input_size")
    number = size[0] if isinstance(size, list | tuple) and len(size) == 3 else 3
    number = config.get("num_channels", config.get("in_chans", number))
    return number if type(number) is int and number > 0 else 3


def fits_float(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number: integers have any number of digits."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _per_channel(what: str, values: Any, channels: int, least: float) -> tuple[float, ...]:
    """A value for each channel, or three values for red, green and blue; one value is repeated."""
    values = list(values) if isinstance(values, list | tuple) else [values]
    values = values * 3 if len(values) == 1 else values
    numbers = all(fits_float(v) and least < v for v in values)
    if len(values) not in (3, channels) or not numbers:
        _refuse(f"{what} {values} and not a number for each of {channels} channels")
    return tuple(map(float, values))


def _refuse(what: str) -> None:
    raise ValueError(f"{what}, which is not supported: correct that file, or remove it")
