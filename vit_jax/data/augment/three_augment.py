"""3-Augment of "DeiT III: Revenge of the ViT" (arXiv 2204.07118)."""

import dataclasses
from typing import ClassVar

import numpy as np

from vit_jax.data.augment import colour_jitter, operations
from vit_jax.data.augment.contract import HostAugmentation

_THRESHOLD = 128  # of solarize
_SIGMA = (0.1, 2.0)  # of the blur, in pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreeAugment(HostAugmentation):
    """One of grey, solarize and blur, each with probability 1/3; then colour jitter."""

    jitter: float = 0.3  # largest change of brightness, contrast and saturation; 0: none

    stream: ClassVar[str] = "three_augment"

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < np.inf:
            raise ValueError(f"three_augment's jitter is {self.jitter}: it must be at least 0")

    def __call__(self, image: np.ndarray, *, numbers: np.ndarray) -> np.ndarray:
        chosen = int(3 * numbers[0])
        if chosen == 0:
            image = operations.grey_image(image)
        elif chosen == 1:
            image = operations.solarize(image, _THRESHOLD)
        else:
            low, high = _SIGMA
            image = operations.blur(image, low + float(numbers[1]) * (high - low))
        if not self.jitter:
            return image
        change = colour_jitter.ColourJitter(
            brightness=self.jitter, contrast=self.jitter, saturation=self.jitter
        )
        return change(image, numbers=numbers[2:])
