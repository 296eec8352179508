"""From an encoded image to uint8 pixels of the model's size, on the host.

Randomness is an argument: `numbers`, the uniform numbers of one sample (`counter.draw`). After the
crop come the augmentations of the host, then the batch goes to the device (`augment`).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from vit_jax.data.augment.contract import HostAugmentation
from vit_jax.data.crops import Crop, Shift, center_crop, shift
from vit_jax.data.decode import BrokenImageError as BrokenImageError
from vit_jax.data.decode import decode as decode
from vit_jax.data.options import DataConfig
from vit_jax.models.preprocessing import LEAST_CROP, Fit, Interpolation


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """A random crop of an image, resized to `size` (height, width), and augmentations of it."""

    size: tuple[int, int]
    crop: Crop
    center: float = 1.0  # share of the short side that `Center` keeps
    interpolation: Interpolation = "linear"
    fit: Fit = "crop"  # how `Center` fits the image
    channels: int = 3  # of the model
    orient: bool = False  # turn as EXIF says
    augmentations: tuple[HostAugmentation, ...] = ()  # see `augmented`

    def __call__(self, image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint8 (h, w, C), float64 (NUMBERS,) in [0, 1) -> uint8 (H, W, C)."""
        return self.crop(image, self, numbers=numbers)

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        return _decoded(data, self)

    def batch(self, images: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint8 (N, h, w, C), float64 (N, NUMBERS) -> uint8 (N, H, W, C)."""
        if isinstance(self.crop, Shift) and images.shape[1:3] == self.size:
            return shift(images, limit=self.crop.shift, numbers=numbers)
        return np.stack([self(image, row) for image, row in zip(images, numbers, strict=True)])

    def augmented(self, image: np.ndarray, numbers: Iterable[np.ndarray]) -> np.ndarray:
        """Applies the augmentations to a crop (H, W, C); each has its `numbers` (NUMBERS,)."""
        for augmentation, row in zip(self.augmentations, numbers, strict=True):
            image = augmentation(image, numbers=row)
        return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resizes an image and cuts `size` (height, width) from the centre: see `center_crop`."""

    size: tuple[int, int]
    center: float = 0.875  # share of the resized image's short side that is kept
    interpolation: Interpolation = "area"
    fit: Fit = "crop"
    channels: int = 3  # of the model
    orient: bool = False  # turn as EXIF says

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 (h, w, C) -> uint8 (H, W, C)."""
        return center_crop(
            image, self.size, share=self.center, interpolation=self.interpolation, fit=self.fit
        )

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        return _decoded(data, self)


def train_transform(
    data: DataConfig,
    *,
    size: tuple[int, int],
    channels: int = 3,
    augmentations: tuple[HostAugmentation, ...] = (),
) -> TrainTransform:
    """The transform of training images. Raises ValueError if fields of `data` do not fit."""
    data.crop.check(size)
    _check_crop_pct(data)
    return TrainTransform(
        size=size,
        crop=data.crop,
        center=data.crop_pct,
        interpolation=data.interpolation,
        fit=data.eval_fit,
        channels=channels,
        orient=data.orientation,
        augmentations=augmentations,
    )


def eval_transform(data: DataConfig, *, size: tuple[int, int], channels: int = 3) -> EvalTransform:
    """The transform for evaluation. Raises ValueError if fields of `data` do not fit."""
    _check_crop_pct(data)
    return EvalTransform(
        size=size,
        center=data.crop_pct,
        interpolation=data.eval_interpolation,
        fit=data.eval_fit,
        channels=channels,
        orient=data.orientation,
    )


def _check_crop_pct(data: DataConfig) -> None:
    if not 0 < data.crop_pct <= 1:
        raise ValueError(f"config.data.crop_pct is {data.crop_pct}: it must be in (0, 1]")
    if data.crop_pct < LEAST_CROP:
        raise ValueError(f"config.data.crop_pct is {data.crop_pct}: give at least {LEAST_CROP}")


def _fast_dct(interpolation: Interpolation) -> bool:
    """Whether to decode JPEGs like TensorFlow, for its interpolations, or like Pillow."""
    return interpolation in ("linear", "area")


def _decoded(data: bytes | np.ndarray, transform: TrainTransform | EvalTransform) -> np.ndarray:
    """The pixels (h, w, C) that a transform takes. Raises BrokenImageError."""
    return decode(
        data,
        channels=transform.channels,
        fast_dct=_fast_dct(transform.interpolation),
        orient=transform.orient,
    )
