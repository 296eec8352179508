"""Measures augmentations on the host, beside timm's and torchvision's where they are installed.

    python benchmarks/augment.py [--size 224] [--rounds 7]

Prints microseconds of CPU time for an image, on one thread: the median of rounds in which all take
turns on the same images. The images are smooth noise. timm's RandAugment and torchvision's
ColorJitter work on Pillow images, ours on arrays; conversions are not counted.
"""

import argparse
import contextlib
import functools
import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import PIL.Image

from vit_jax.data.augment import AUGMENTATIONS, HostAugmentation
from vit_jax.data.counter import draw

IMAGES = 256
FILL = (124, 116, 104)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Name -> the augmentation of the table and its fields.
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandAugment m9 mstd0.5 inc1, probability 0.5": ("randaugment_timm", {}),
    "RandAugment m9 mstd0.5 inc1, probability 1": ("randaugment_timm", {"probability": 1.0}),
    "RandAugment m9 mstd0.5 inc1, bicubic": ("randaugment_timm", {"interpolation": "bicubic"}),
    "RandAugment of big_vision, randaug(2,15)": ("randaugment_big_vision", {}),
    "3-Augment": ("three_augment", {}),
    "colour jitter 0.4": ("colour_jitter", {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--rounds", type=int, default=7)
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    images = smooth_noise(flags.size)
    runs = dict(ours(images)) | dict(theirs(images))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(flags.rounds + 1):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            times[name].append((time.process_time() - begin) / IMAGES * 1e6)
    print(f"| {flags.size} px, CPU microseconds for an image | median | smallest |\n|---|---|---|")
    for name, found in times.items():
        warm = found[1:]
        print(f"| {name} | {statistics.median(warm):.0f} | {min(warm):.0f} |")


def smooth_noise(size: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (IMAGES, size // 8, size // 8, 3), dtype=np.uint8)
    return [cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in small]


def ours(images: list[np.ndarray]) -> Iterator[tuple[str, Callable[[], Any]]]:
    for title, (name, fields) in OURS.items():
        augmentation = AUGMENTATIONS[name](**fields).bound(mean=MEAN, std=STD)
        assert isinstance(augmentation, HostAugmentation)
        numbers = draw(augmentation.stream, seed=0, start=0, count=IMAGES)
        yield f"ours: {title}", functools.partial(_all, augmentation, images, numbers)


def _all(
    augmentation: HostAugmentation, images: list[np.ndarray], numbers: np.ndarray
) -> list[np.ndarray]:
    return [augmentation(image, numbers=row) for image, row in zip(images, numbers, strict=True)]


def theirs(images: list[np.ndarray]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """The augmentations of timm and torchvision; none where they are not installed."""
    try:
        transforms = importlib.import_module("torchvision.transforms")
        timm = importlib.import_module("timm.data.auto_augment")
    except (ImportError, RuntimeError) as error:  # or versions that do not fit each other
        print(f"timm and torchvision are not measured: {error}")
        return
    pictures = [PIL.Image.fromarray(image) for image in images]
    bicubic = {"interpolation": PIL.Image.Resampling.BICUBIC}
    kinds: dict[str, Any] = {
        "timm: RandAugment m9 mstd0.5 inc1, probability 0.5": timm.rand_augment_transform(
            "rand-m9-mstd0.5-inc1", {"img_mean": FILL}
        ),
        "timm: RandAugment m9 mstd0.5 inc1, probability 1": timm.rand_augment_transform(
            "rand-m9-mstd0.5-inc1-p1.0", {"img_mean": FILL}
        ),
        "timm: RandAugment m9 mstd0.5 inc1, bicubic": timm.rand_augment_transform(
            "rand-m9-mstd0.5-inc1", {"img_mean": FILL, **bicubic}
        ),
        "torchvision: ColorJitter 0.4": transforms.ColorJitter(0.4, 0.4, 0.4),
    }
    for name, kind in kinds.items():
        yield name, functools.partial(_each, kind, pictures)


def _each(apply: Callable[[Any], Any], pictures: list[PIL.Image.Image]) -> None:
    for picture in pictures:
        with contextlib.suppress(ValueError):  # timm's posterize asks for 0 bits; Pillow 13 refuses
            apply(picture)


if __name__ == "__main__":
    main()
