"""Facts that a file's names and shapes leave open: given by the user or by the files beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.checkpoints.layouts import expects
from vit_jax.models.options import EncoderOptions
from vit_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints:
    """The user's arguments and the files beside a checkpoint; empty where unknown.

    The user's arguments win over the files.
    """

    num_heads: int = 0
    decoder_heads: int = 0  # of a masked autoencoder
    grid: tuple[int, int] | None = None  # of the positions
    position: str = ""  # kind of positions, where the file has no array of them
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # config.json
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wanted_size: tuple[int, int] | None = None  # image size that the model is loaded for
    notes: list[str] = dataclasses.field(default_factory=list)  # messages about assumptions

    def __post_init__(self) -> None:
        _check_kinds(self.config)
        for name in ("vision_config", "backbone_config", "model_args"):
            _check_kinds(self.config.get(name) or {})

    @property
    def arguments(self) -> dict[str, Any]:
        """The fields of config.json, with timm's `model_args` merged into them."""
        return {**self.config, **self.model_args}

    @property
    def model_args(self) -> Mapping[str, Any]:
        """The arguments of timm's model in config.json, {} where it has none."""
        return self.config.get("model_args") or {}

    @property
    def heads_are_given(self) -> bool:
        """Whether the user or a file names the number of heads, which no array contains."""
        return bool(self.num_heads or self.arguments.get("num_heads"))

    def nominal(self, patch: tuple[int, int]) -> tuple[int, int]:
        """The grid of a model without positions: the user's, or that of images of 224 pixels."""
        return self.grid or (max(224 // patch[0], 1), max(224 // patch[1], 1))


_WHOLE = ("num_attention_heads", "decoder_num_attention_heads", "decoder_num_heads",
          "num_channels", "hidden_size", "num_groups")  # fmt: skip
_FLOATS = ("layer_scale_init_value", "layerscale_value")
_SIZES = ("image_size", "patch_size")
_OBJECTS = ("id2label", "vision_config", "pretrained_cfg", "backbone_config", "model_args")
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(_WHOLE, ("a positive whole number", lambda v: _whole(v))),
    **dict.fromkeys(_SIZES, ("a positive whole number or two", lambda v: _whole_or_two(v))),
    **dict.fromkeys(_OBJECTS, ("an object", lambda v: isinstance(v, Mapping))),
    **dict.fromkeys(_FLOATS, ("a finite number", lambda v: expects.fits_float(v))),
    "layer_norm_eps": ("a number in (0, 1)", lambda v: type(v) in (int, float) and 0 < v < 1),
    "hidden_act": ("a name", lambda v: isinstance(v, str)),
    "num_heads": ("a positive whole number, or one for each stage", lambda v: _each(v, _whole)),
    "window_size": (
        "a positive whole number or two, or that for each stage",
        lambda v: _each(v, _whole_or_two),
    ),
}


def _check_kinds(config: Mapping[str, Any]) -> None:
    """Raises ValueError where a field of config.json has a wrong type."""
    for name, (kind, fits) in _KINDS.items():
        value = config.get(name)
        if value is not None and not fits(value):
            raise ValueError(f"config.json has {name} {value!r}, which must be {kind}")


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


def _whole_or_two(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(map(_whole, value))
    return _whole(value)


def _each(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value fits, or is a list of values that do."""
    return all(map(fits, value)) if isinstance(value, list | tuple) else fits(value)


def heads(hints: Hints, known: Mapping[int, int], *, width: int) -> int:
    """The number of heads: from the hints, or that of the known model with this width.

    Raises ValueError where both are missing: a number of heads is never guessed.
    """
    config = hints.config
    given = hints.num_heads or config.get("num_attention_heads", 0) or config.get("num_heads", 0)
    number = given or known.get(width, 0)
    if not number:
        raise ValueError(
            f"the file does not contain the number of heads, and no known model has width {width}:"
            " give num_heads (convert: --num-heads)"
        )
    if not isinstance(number, int) or width % number:
        raise ValueError(f"width {width} does not divide into {number} heads")
    return number


def decoder_heads(hints: Hints, *, width: int) -> int:
    """The number of heads of a masked autoencoder's decoder: from the hints, or 16 at width 512.

    Raises ValueError where it is unknown.
    """
    config = hints.config
    given = config.get("decoder_num_attention_heads", 0) or config.get("decoder_num_heads", 0)
    number = hints.decoder_heads or given or (16 if width == 512 else 0)
    if not number:
        raise ValueError(
            "the file does not contain the number of heads of its decoder, and no known decoder has"
            f" width {width}: give decoder_heads (convert: --decoder-heads)"
        )
    return number


def unknown(arguments: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> list[str]:
    """`name=value` of each argument of timm's models with another value than its known ones.

    None, timm's default of many arguments, is always known.
    """
    given = {name: arguments.get(name) for name in known}
    return [f"{k}={v!r}" for k, v in given.items() if v is not None and v not in known[k]]


# Arguments of timm's convolutional networks and Swin that leave no trace in the arrays.
_STAGED: dict[str, tuple[Any, ...]] = {
    "global_pool": ("avg", ""),
    "output_stride": (32,),
    "act_layer": ("relu",),
    "norm_layer": (),
    "aa_layer": (),
}


def refuse_arguments(hints: Hints, **known: tuple[Any, ...]) -> None:
    """Raises ValueError where config.json has an argument of timm's that changes the computation.

    `known` are the values that are supported, of arguments that the arrays do not show; by default
    those of a ResNet.
    """
    if found := unknown(hints.arguments, _STAGED | known):
        raise ValueError(f"a model with {', '.join(found)} is not supported")


def nominal_size(hints: Hints) -> tuple[int, int] | None:
    """(height, width) of images in the files beside the checkpoint; None where they have none."""
    timm = hints.config.get("pretrained_cfg") or hints.config
    if isinstance(size := timm.get("input_size"), list) and len(size) == 3:
        return _pixels("input_size", size[1]), _pixels("input_size", size[2])
    processor = hints.preprocessor
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = hints.config.get("image_size") or cropped or processor.get("size")
    if isinstance(size, list) and len(size) == 2:
        return _pixels("image_size", size[0]), _pixels("image_size", size[1])
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return _pixels("size", size["height"]), _pixels("size", size["width"])
    side = _side(size)
    return (side, side) if side else None


def released(image_size: tuple[int, int], hints: Hints, **default: Any) -> Preprocessing:
    """The preprocessing in the files beside the checkpoint, completed by the family's `default`.

    Raises ValueError for a value that `Preprocessing` cannot express.
    """
    found = expects.read(hints.preprocessor, hints.config)
    return Preprocessing(image_size=image_size, **(default | found))


def assumed(preprocessing: Preprocessing, hints: Hints, **fields: Any) -> tuple[str, ...]:
    """A message about values that no file specifies: `fields` of the model, and mean and std."""
    if "mean" not in expects.read(hints.preprocessor, hints.config):
        fields |= {"mean": preprocessing.mean, "std": preprocessing.std}
    if not fields:
        return ()
    values = ", ".join(f"{name} {value!r}" for name, value in fields.items())
    return (f"no file beside it has {', '.join(fields)}: assumed {values}",)


def assumed_heads(
    options: EncoderOptions, preprocessing: Preprocessing, hints: Hints
) -> tuple[str, ...]:
    """As `assumed`, for a family whose arrays specify all of the model but the number of heads."""
    fields = {} if hints.heads_are_given else {"num_heads": options.num_heads}
    return assumed(preprocessing, hints, **fields)


def assumed_pixels(options: object, preprocessing: Preprocessing, hints: Hints) -> tuple[str, ...]:
    """As `assumed`, for a family whose arrays specify the whole model: only mean and std."""
    del options
    return assumed(preprocessing, hints)


def _pixels(name: str, value: Any) -> int:
    """A side of an image from a JSON file. Raises ValueError unless it is a positive integer."""
    if type(value) is not int or value < 1:
        raise ValueError(
            f"the files beside the checkpoint have {name} {value!r}, which must be a positive whole"
            " number"
        )
    return value


def _side(size: Any) -> int:
    """The short side of `224`, `{"height": 224, "width": 224}` or `{"shortest_edge": 224}`."""
    if isinstance(size, Mapping):
        sides = [size[k] for k in ("shortest_edge", "height", "width") if size.get(k)]
        return min(_pixels("size", side) for side in sides) if sides else 0
    return int(size) if isinstance(size, int) else 0
