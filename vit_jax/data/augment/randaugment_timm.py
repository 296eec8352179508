"""RandAugment (arXiv 1909.13719) with timm's operations and magnitudes."""

import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np

from vit_jax.data.augment import operations, warps
from vit_jax.data.augment.contract import HostAugmentation
from vit_jax.data.counter import NUMBERS

OPERATIONS = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add"),
    *("colour", "contrast", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y"),
)
_EACH = 5  # random numbers of a layer
_UNIFORM = 100  # a larger standard deviation means a uniform magnitude
_UNBOUND_FILL = 128  # of an augmentation without a model

_PLAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "autocontrast": operations.autocontrast,
    "equalize": operations.equalize,
    "invert": operations.invert,
}
_ENHANCED: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "colour": operations.colour,
    "contrast": operations.contrast,
    "brightness": operations.brightness,
    "sharpness": operations.sharpness,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugmentTimm(HostAugmentation):
    """Applies random operations as timm does: the defaults are its rand-m9-mstd0.5-inc1."""

    layers: int = 2  # operations for each image (timm's n)
    magnitude: float = 9.0  # strength of the operations, up to `magnitude_max` (timm's m)
    # Standard deviation of the magnitude of each operation (timm's mstd). More than 100: the
    # magnitude is uniform between 0 and `magnitude`.
    magnitude_std: float = 0.5
    magnitude_max: float = 10.0  # magnitudes are clipped to this (timm's mmax)
    probability: float = 0.5  # of applying an operation (timm's p)
    # Whether a larger magnitude makes every operation stronger (timm's inc). Otherwise it makes
    # posterize and solarize weaker, and colours, contrast, brightness and sharpness larger.
    increasing: bool = True
    # Colour of what a rotation, shear or translation uncovers, a value for each channel. Unset: the
    # mean of the model's pixels, as timm does.
    fill: tuple[int, ...] = ()
    # How rotations, shears and translations interpolate; random: one of the others for each.
    interpolation: Literal["random", "bilinear", "bicubic"] = "random"

    stream: ClassVar[str] = "randaugment_timm"

    def __post_init__(self) -> None:
        name = "randaugment_timm's"
        if not 1 <= self.layers <= NUMBERS // _EACH:
            most = NUMBERS // _EACH
            raise ValueError(f"{name} layers is {self.layers}: it must be from 1 to {most}")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"{name} probability is {self.probability}: it must be in [0, 1]")
        for field in ("magnitude", "magnitude_std", "magnitude_max"):
            value = getattr(self, field)
            if not (0 <= value < math.inf):  # NaN is not
                raise ValueError(f"{name} {field} is {value}: it must be at least 0")
        if self.fill and not 0 <= min(self.fill) <= max(self.fill) <= 255:
            raise ValueError(f"{name} fill is {self.fill}: give values from 0 to 255")

    def bound(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> "RandAugmentTimm":
        fill = self.fill or tuple(min(255, max(0, round(255 * value))) for value in mean)
        if len(fill) != len(mean):
            raise ValueError(
                f"randaugment_timm's fill is {fill}: give a value for each of the {len(mean)}"
                " channels of the model"
            )
        return dataclasses.replace(self, fill=fill)

    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        for row in numbers[: _EACH * self.layers].reshape(-1, _EACH).tolist():
            chosen, applies, strength, sign, method = row
            if applies < self.probability:
                image = self.applied(
                    OPERATIONS[int(chosen * len(OPERATIONS))],
                    image,
                    level=self.level(strength),
                    negative=sign < 0.5,
                    interpolation=self._method(method),
                )
        return image

    def level(self, number: float) -> float:
        """The magnitude for a uniform number in [0, 1)."""
        level = self.magnitude
        if self.magnitude_std > _UNIFORM:
            level = number * self.magnitude
        elif self.magnitude_std:
            normal = statistics.NormalDist(self.magnitude, self.magnitude_std)
            level = normal.inv_cdf(max(number, 2**-53))
        return min(max(level, 0.0), self.magnitude_max)

    def _method(self, number: float) -> warps.WarpInterpolation:
        if self.interpolation == "random":
            return "bilinear" if number < 0.5 else "bicubic"
        return self.interpolation

    def applied(
        self,
        name: str,
        image: np.ndarray,
        *,
        level: float,
        negative: bool,
        interpolation: warps.WarpInterpolation,
    ) -> np.ndarray:
        """The image after one of `OPERATIONS`; `negative` is the direction, if it has one."""
        share = level / 10
        signed = -share if negative else share
        if name in _PLAIN:
            return _PLAIN[name](image)
        if name in _ENHANCED:
            factor = max(0.1, 1 + 0.9 * signed) if self.increasing else 1.8 * share + 0.1
            return _ENHANCED[name](image, factor)
        if name == "posterize":
            bits = int(share * 4)
            return operations.posterize(image, max(0, 4 - bits) if self.increasing else bits)
        if name == "solarize":
            threshold = min(256, int(share * 256))
            return operations.solarize(image, 256 - threshold if self.increasing else threshold)
        if name == "solarize_add":
            return operations.solarize_add(image, min(128, int(share * 110)))
        height, width, channels = image.shape
        warp, amount = {
            "rotate": (warps.rotate, signed * 30.0),
            "shear_x": (warps.shear_x, signed * 0.3),
            "shear_y": (warps.shear_y, signed * 0.3),
            # timm's order of products: another one would round some half pixels to another line.
            "translate_x": (warps.translate_x, signed * 0.45 * width),
            "translate_y": (warps.translate_y, signed * 0.45 * height),
        }[name]
        fill = self.fill or (_UNBOUND_FILL,) * channels
        return warp(image, amount, fill=fill, interpolation=interpolation)
