"""What a file's keys and shapes cannot tell: said by the user, or by the files beside it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

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

    def square(self, count: int) -> tuple[int, int]:
        """The grid of so many positions. Raises ValueError where it is not square nor told."""
        if self.grid:
            rows, columns = self.grid
            if rows * columns != count:
                raise ValueError(f"grid {rows}x{columns} is not the checkpoint's {count} positions")
            return self.grid
        side = round(count**0.5)
        if side * side != count:
            raise ValueError(f"{count} positions are no square: give the checkpoint's grid")
        return side, side

    def nominal(self, patch: tuple[int, int]) -> tuple[int, int]:
        """The grid of patches of a model without positions: that of most released ones."""
        return self.grid or (max(224 // patch[0], 1), max(224 // patch[1], 1))

    def class_names(self, number: int) -> tuple[str, ...]:
        """The names of so many classes, where the files beside the checkpoint tell them."""
        names = self.config.get("id2label", {})
        ordered = [names.get(str(i)) for i in range(number)]
        generic = [f"LABEL_{i}" for i in range(number)]
        known = ordered and all(isinstance(n, str) for n in ordered) and ordered != generic
        return tuple(map(str, ordered)) if known else ()


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
            " model: give num_heads"
        )
    if width % number:
        raise ValueError(f"width {width} does not divide into {number} heads")
    return number


def nominal_size(hints: Hints) -> tuple[int, int] | None:
    """The image size that the files beside the checkpoint tell: for what works at any size."""
    timm = hints.config.get("pretrained_cfg", hints.config)
    if isinstance(size := timm.get("input_size"), list) and len(size) == 3:
        return int(size[1]), int(size[2])
    processor = hints.preprocessor
    cropped = processor.get("crop_size") if processor.get("do_center_crop") else None
    size = hints.config.get("image_size") or cropped or processor.get("size")
    if isinstance(size, list) and len(size) == 2:
        return int(size[0]), int(size[1])
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return int(size["height"]), int(size["width"])
    side = _side(size)
    return (side, side) if side else None


def released(image_size: tuple[int, int], hints: Hints, **default: Any) -> Preprocessing:
    """The preprocessing that the files beside the checkpoint tell, else the family's default."""
    return Preprocessing(image_size=image_size, **(default | _told(hints)))


def _told(hints: Hints) -> dict[str, Any]:
    """Fields of `Preprocessing` in Hugging Face's and timm's files."""
    told: dict[str, Any] = {}
    processor = hints.preprocessor
    timm = hints.config.get("pretrained_cfg", {})
    for field, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if values := processor.get(theirs) or timm.get(field):
            values = values if isinstance(values, list | tuple) else [values] * 3
            told[field] = tuple(float(v) for v in values)
    if processor.get("do_normalize") is False:
        told |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if timm.get("crop_pct"):
        told["crop"] = float(timm["crop_pct"])
    kernel = _KERNELS.get(str(timm.get("interpolation", processor.get("resample", ""))))
    if kernel:
        told["kernel"] = kernel
    return told | _told_crop(processor)


# timm's names, and the numbers that Pillow gives its filters.
_KERNELS = {
    "bicubic": "bicubic_antialias",
    "bilinear": "bilinear_antialias",
    "3": "bicubic_antialias",
    "2": "bilinear_antialias",
}


def _told_crop(processor: Mapping[str, Any]) -> dict[str, Any]:
    """Hugging Face: the resized size, and the crop's where it crops."""
    size = _side(processor.get("size"))
    if not size:
        return {}
    crop = _side(processor.get("crop_size")) if processor.get("do_center_crop") else 0
    return {"crop": crop / size if crop else 1.0}


def _side(size: Any) -> int:
    """The short side of `224`, `{"height": 224, "width": 224}` or `{"shortest_edge": 224}`."""
    if isinstance(size, Mapping):
        sides = [size[k] for k in ("shortest_edge", "height", "width") if size.get(k)]
        return int(min(sides)) if sides else 0
    return int(size) if isinstance(size, int) else 0
