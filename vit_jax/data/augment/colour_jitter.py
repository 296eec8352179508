"""Random brightness, contrast, saturation and hue, as torchvision's ColorJitter changes them."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import PIL.Image

from vit_jax.data.augment import operations
from vit_jax.data.augment.contract import HostAugmentation

_KINDS = ("brightness", "contrast", "saturation", "hue")
_FUNCTIONS = (operations.brightness, operations.contrast, operations.colour)
NUMBERS = 2 * len(_KINDS)  # random numbers of an image


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourJitter(HostAugmentation):
    """Changes the colours of an image in a random order; 0.4 means factors from 0.6 to 1.4."""

    brightness: float = 0.4  # largest change of the factor of brightness; 0: no change
    contrast: float = 0.4  # the same for contrast
    saturation: float = 0.4  # the same for saturation
    hue: float = 0.0  # largest shift of the hue as a share of the colour circle, at most 0.5

    stream: ClassVar[str] = "colour_jitter"

    def __post_init__(self) -> None:
        for name in _KINDS:
            value, most = getattr(self, name), 0.5 if name == "hue" else np.inf
            if not 0 <= value <= most or value == np.inf:
                limits = "in [0, 0.5]" if name == "hue" else "at least 0"
                raise ValueError(f"colour_jitter's {name} is {value}: it must be {limits}")
        if not any(getattr(self, name) for name in _KINDS):
            raise ValueError("colour_jitter's changes are all 0: leave it out")

    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        order = np.argsort(numbers[: len(_KINDS)], kind="stable").tolist()
        drawn = numbers[len(_KINDS) : NUMBERS].tolist()
        return jittered(image, order, [self.factor(i, number) for i, number in enumerate(drawn)])

    def factor(self, kind: int, number: float) -> float | None:
        """The factor, or shift of the hue, for a uniform number; None: no change."""
        change = getattr(self, _KINDS[kind])
        if not change:
            return None
        low, high = (-change, change) if kind == 3 else (max(0.0, 1 - change), 1 + change)
        return float(low + number * (high - low))


def jittered(
    image: np.ndarray, order: Sequence[int], factors: Sequence[float | None]
) -> np.ndarray:
    """Changes brightness (0), contrast (1), saturation (2) and hue (3) in this order."""
    for kind in order:
        factor = factors[kind]
        if factor is not None:
            image = hue(image, factor) if kind == 3 else _FUNCTIONS[kind](image, factor)
    return image


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Shifts the hue by a share of the colour circle, as torchvision does for Pillow's images."""
    if image.shape[2] == 1:
        return image
    planes = PIL.Image.fromarray(image).convert("HSV").split()
    turned = np.asarray(planes[0]) + np.uint8(int(shift * 255) % 256)  # uint8 begins again at 0
    merged = PIL.Image.merge("HSV", (PIL.Image.fromarray(turned), *planes[1:]))
    return np.array(merged.convert("RGB"))
