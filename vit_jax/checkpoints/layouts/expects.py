"""What images a released model expects, as the JSON files beside its weights tell.

Hugging Face's preprocessor_config.json leaves out what its class of processors has by default;
timm's pretrained_cfg is whole.
"""

import math
from collections.abc import Mapping
from typing import Any

from vit_jax.models.preprocessing import Fit, Interpolation

_Told = dict[str, Any]

_TIMM_INTERPOLATIONS: dict[str, Interpolation] = {
    "bicubic": "bicubic_antialias",
    "bilinear": "bilinear_antialias",
    "lanczos": "lanczos_antialias",
    "nearest": "nearest",
    "random": "bilinear_antialias",  # of training; evaluation draws nothing
}
_FITS: dict[str, Fit] = {"center": "crop", "squash": "squash"}

# The numbers that Pillow gives its filters.
PILLOW: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos_antialias",
    2: "bilinear_antialias",
    3: "bicubic_antialias",
}

# What Hugging Face's classes of processors do where their file does not tell: the filter, whether
# they cut the centre out, and whether a bare number is the size of both sides or of the shorter.
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
_OF_MODELS = {
    **{"vit": "ViT", "vit_mae": "ViT", "swin": "ViT", "deit": "DeiT", "beit": "Beit"},
    **{"clip": "CLIP", "clip_vision_model": "CLIP"},
    **{"siglip": "Siglip", "siglip_vision_model": "Siglip", "vit-hybrid": "ViTHybrid"},
    **{"bit": "Bit", "dinov2": "Bit", "dinov2_with_registers": "Bit"},
}
_CONVNEXT_SQUASHES = 384  # from this size on


def told(preprocessor: Mapping[str, Any], config: Mapping[str, Any]) -> _Told:
    """Fields of `Preprocessing` that a preprocessor_config.json, or else a config.json, tells.

    Raises ValueError where they tell what `Preprocessing` cannot say.
    """
    if preprocessor:
        return _of_processor(preprocessor, config)
    return _of_timm(config.get("pretrained_cfg") or config)


def _of_timm(config: Mapping[str, Any]) -> _Told:
    told: _Told = {
        name: _of_channels(name, config[name], _channels(config))
        for name in ("mean", "std")
        if config.get(name)
    }
    if share := config.get("crop_pct"):
        share = share if type(share) in (int, float) else 0
        told["crop_pct"] = _share(share, f"pretrained_cfg has crop_pct {config['crop_pct']!r}")
    for field, theirs, known in (
        ("interpolation", "interpolation", _TIMM_INTERPOLATIONS),
        ("fit", "crop_mode", _FITS),
    ):
        if name := config.get(theirs):
            if not isinstance(name, str) or name not in known:
                _refuse(f"pretrained_cfg has {theirs} {name!r}: known are {', '.join(known)}")
            told[field] = known[name]
    return told


def _of_processor(file: Mapping[str, Any], config: Mapping[str, Any]) -> _Told:
    """Hugging Face: resize, cut, times `rescale_factor`, minus mean, by std."""
    for name, value in (("do_resize", False), ("rescale_offset", True), ("do_pad", True)):
        if file.get(name) is value:
            _refuse(f"preprocessor_config.json has {name} {str(value).lower()}")
    return _resizing(file, config) | _values(file, _channels(config))


def _values(file: Mapping[str, Any], channels: int) -> _Told:
    """Mean and standard deviation of pixels in [0, 1], whatever range the processor makes."""
    factor = 255.0
    if file.get("do_rescale", True):
        factor *= _number("rescale_factor", file.get("rescale_factor", 1 / 255))
    if abs(factor - 1) < 1e-6:
        factor = 1.0
    if file.get("do_normalize") is False:
        return {"mean": (0.0, 0.0, 0.0), "std": (1 / factor,) * 3}
    told = {}
    for field, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if values := file.get(theirs):
            told[field] = tuple(v / factor for v in _of_channels(theirs, values, channels))
    if factor != 1 and len(told) < 2:
        _refuse("preprocessor_config.json has a rescale_factor without image_mean and image_std")
    return told


def _resizing(file: Mapping[str, Any], config: Mapping[str, Any]) -> _Told:
    filter_, cuts, fit = _PROCESSORS.get(
        _processor(file, config), (None, "crop_size" in file, None)
    )
    told: _Told = {}
    number = file.get("resample", filter_)
    if number is not None:
        if not isinstance(number, int) or number not in PILLOW:
            known = ", ".join(map(str, PILLOW))
            _refuse(f"preprocessor_config.json has resample {number!r}: known are {known}")
        told["interpolation"] = PILLOW[number]
    if file.get("size") is None:
        return told
    size, fit = _size("size", file["size"], fit or "squash")
    told["fit"] = fit
    if "crop_pct" in file:  # ConvNext's: its size is the crop's
        squashes = min(size) >= _CONVNEXT_SQUASHES
        share = 1.0 if squashes else _number("crop_pct", file["crop_pct"] or 224 / 256)
        told["fit"] = "squash" if squashes else "crop_floor"
        return told | {"crop_pct": _share(share, f"preprocessor_config.json has crop_pct {share}")}
    if not file.get("do_center_crop", cuts) or file.get("crop_size") is None:
        return told | {"crop_pct": 1.0, "fit": _uncut(file["size"], fit)}
    cut, _ = _size("crop_size", file["crop_size"], "squash")
    what = f"preprocessor_config.json has size {file['size']} and crop_size {file['crop_size']}"
    # Sides that are rounded to pixels are not quite of one aspect ratio.
    if fit == "squash" and not -cut[0] < cut[0] * size[1] - cut[1] * size[0] < cut[1]:
        _refuse(f"{what}, of another aspect ratio")
    # Of a size that is the shorter side's, the larger side of the cut is what has to fit.
    return told | {
        "crop_pct": _share((max(cut) if fit == "crop_floor" else cut[0]) / size[0], what)
    }


def _processor(file: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The class that reads the file, without what its names end on."""
    name = str(file.get("image_processor_type") or file.get("feature_extractor_type") or "")
    for end in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(end)
    return name or _OF_MODELS.get(str(config.get("model_type", "")), "")


def _size(name: str, size: Any, fit: Fit) -> tuple[tuple[int, int], Fit]:
    """(height, width), and whether both sides are meant or only the shorter one."""
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
    if not all(type(side) is int and side > 0 for side in sides):
        _refuse(f"preprocessor_config.json has {name} {size!r}")
    return (sides[0], sides[1]), fit


def _number(name: str, value: Any) -> float:
    if not (type(value) in (int, float) and 0 < value < math.inf):
        _refuse(f"preprocessor_config.json has {name} {value!r}")
    return float(value)


def _uncut(size: Any, fit: Fit) -> Fit:
    """Resized images are all of one size only where both sides are told."""
    if fit == "crop_floor":
        _refuse(f"preprocessor_config.json has size {size!r} and cuts nothing, so sizes vary")
    return fit


def _share(share: float, what: str) -> float:
    if not 0 < share <= 1:
        _refuse(f"{what}: the cut must be within the resized image")
    return share


def _channels(config: Mapping[str, Any]) -> int:
    """What the model takes, by Hugging Face's or timm's config: colours where it does not tell."""
    size = config.get("input_size")
    number = size[0] if isinstance(size, list | tuple) and len(size) == 3 else 3
    number = config.get("num_channels", config.get("in_chans", number))
    return number if type(number) is int and number > 0 else 3


def _of_channels(name: str, values: Any, channels: int) -> tuple[float, ...]:
    """A value for each channel, or for red, green and blue; one for all counts thrice."""
    values = list(values) if isinstance(values, list | tuple) else [values]
    values = values * 3 if len(values) == 1 else values
    least = 0 if name.endswith("std") else -math.inf
    numbers = all(type(v) in (int, float) and least < v < math.inf for v in values)
    if len(values) not in (3, channels) or not numbers:
        _refuse(f"{name} is {values}, not a number for each of {channels} channels")
    return tuple(map(float, values))


def _refuse(what: str) -> None:
    raise ValueError(f"{what}, which is not known here: correct that file, or remove it")
