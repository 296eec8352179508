"""What a file's keys and shapes cannot tell: said by the user, or by the files beside it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.checkpoints.layouts import expects
from vit_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hints:
    """Empty where unknown. What the user says wins over the files."""

    num_heads: int = 0
    decoder_heads: int = 0  # of a masked autoencoder
    grid: tuple[int, int] | None = None  # of the positions, where it is not square
    position: str = ""  # their kind, where the file has none
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # config.json
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wanted_size: tuple[int, int] | None = None  # of the images that the model is asked for
    notes: list[str] = dataclasses.field(default_factory=list)  # what was assumed, in words

    def __post_init__(self) -> None:
        for config in (self.config, self.config.get("vision_config") or {}):
            _check_kinds(config)

    @property
    def arguments(self) -> dict[str, Any]:
        """What config.json tells, with timm's arguments of the model as if they were of it."""
        return {**self.config, **self.config.get("model_args", {})}

    def nominal(self, patch: tuple[int, int]) -> tuple[int, int]:
        """The grid of patches of a model without positions: that of most released ones."""
        return self.grid or (max(224 // patch[0], 1), max(224 // patch[1], 1))


_WHOLE = ("num_attention_heads", "decoder_num_attention_heads", "num_channels", "hidden_size")
_SIZES = ("image_size", "patch_size")
_OBJECTS = ("id2label", "vision_config", "pretrained_cfg", "backbone_config", "model_args")
_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(_WHOLE, ("a positive whole number", lambda v: _whole(v))),
    **dict.fromkeys(_SIZES, ("a positive whole number or two", lambda v: _whole_or_two(v))),
    **dict.fromkeys(_OBJECTS, ("an object", lambda v: isinstance(v, Mapping))),
    "layer_norm_eps": ("a number in (0, 1)", lambda v: type(v) in (int, float) and 0 < v < 1),
}


def _check_kinds(config: Any) -> None:
    """Raises ValueError where a config.json has something else where a number has to be."""
    if not isinstance(config, Mapping):
        raise ValueError(f"config.json has a vision_config {config!r}, which must be an object")
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


def heads(hints: Hints, known: Mapping[int, int], *, width: int) -> int:
    """Heads of a fused projection: told, or those of the known model of this width.

    Raises ValueError where neither tells: a number of heads is never guessed.
    """
    config = hints.config
    told = hints.num_heads or config.get("num_attention_heads", 0) or config.get("num_heads", 0)
    number = told or known.get(width, 0)
    if not number:
        raise ValueError(
            f"the file does not tell the number of heads and width {width} is of no known"
            " model: give num_heads (convert: --num-heads)"
        )
    if width % number:
        raise ValueError(f"width {width} does not divide into {number} heads")
    return number


def decoder_heads(hints: Hints, *, width: int) -> int:
    """Heads of a masked autoencoder's decoder: told, or those of the released width.

    Raises ValueError where neither tells.
    """
    config = hints.config
    told = config.get("decoder_num_attention_heads", 0) or config.get("decoder_num_heads", 0)
    number = hints.decoder_heads or told or (16 if width == 512 else 0)
    if not number:
        raise ValueError(
            "the file does not tell the number of heads of its decoder and width"
            f" {width} is of no known one: give decoder_heads (convert: --decoder-heads)"
        )
    return number


def refuse_pools(hints: Hints) -> None:
    """Raises ValueError where timm's config.json tells of another pool than the mean."""
    told = hints.arguments.get("global_pool", "")
    if told not in ("avg", ""):
        raise ValueError(f"a model with global_pool={told!r} is not supported")


def nominal_size(hints: Hints) -> tuple[int, int] | None:
    """The image size that the files beside the checkpoint tell: for what works at any size."""
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
    """The preprocessing that the files beside the checkpoint tell, else the family's default.

    Raises ValueError where they tell what `Preprocessing` cannot say.
    """
    told = expects.told(hints.preprocessor, hints.config)
    return Preprocessing(image_size=image_size, **(default | told))


def assumed(preprocessing: Preprocessing, hints: Hints, **fields: Any) -> tuple[str, ...]:
    """In words, what the files beside the checkpoint should tell and do not, as it was taken.

    `fields` are those of the model; the value range of pixels is added where it is not told.
    """
    if "mean" not in expects.told(hints.preprocessor, hints.config):
        fields |= {"mean": preprocessing.mean, "std": preprocessing.std}
    if not fields:
        return ()
    taken = ", ".join(f"{name} {value!r}" for name, value in fields.items())
    return (f"no file beside it tells {', '.join(fields)}: assumed {taken}",)


def assumed_pixels(options: object, preprocessing: Preprocessing, hints: Hints) -> tuple[str, ...]:
    """As `assumed`, of a family whose arrays tell all of the model: the value range of pixels."""
    del options
    return assumed(preprocessing, hints)


def _pixels(name: str, value: Any) -> int:
    """A side of an image, as a JSON file tells it. Raises ValueError for no whole number."""
    if type(value) is not int or value < 1:
        raise ValueError(f"the files beside the checkpoint have {name} {value!r}: no whole number")
    return value


def _side(size: Any) -> int:
    """The short side of `224`, `{"height": 224, "width": 224}` or `{"shortest_edge": 224}`."""
    if isinstance(size, Mapping):
        sides = [size[k] for k in ("shortest_edge", "height", "width") if size.get(k)]
        return min(_pixels("size", side) for side in sides) if sides else 0
    return int(size) if isinstance(size, int) else 0
