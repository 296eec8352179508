"""What a plan must know about the data of a run: from known names or from the command line."""

import math
import re

from vit_jax.config import Config
from vit_jax.data import opening, subset
from vit_jax.data.record import DataFacts
from vit_jax.data.sources import EmbeddedData

# Training images and classes, as the pages of the datasets state them.
KNOWN = {
    "imagenet2012": (1_281_167, 1000),
    "imagenet21k": (14_197_122, 21_841),
    "imagenet_resized": (1_281_167, 1000),
    "cifar10": (50_000, 10),
    "cifar100": (50_000, 100),
    "fashion_mnist": (60_000, 10),
    "mnist": (60_000, 10),
    "oxford_flowers102": (1_020, 102),
    "oxford_iiit_pet": (3_680, 37),
    "food101": (75_750, 101),
    "stanford_dogs": (12_000, 120),
    "places365_small": (1_803_460, 365),
    "i_naturalist2021": (2_686_843, 10_000),
}
_PART = re.compile(r"train(?:\[(\d+%?)?:(\d+%?)?\])?")


def of_config(config: Config, *, train_size: int | None, num_classes: int | None) -> DataFacts:
    """The facts of the data that a config names, or those given.

    Raises ValueError if they are not known and not given, or are fewer than the config chooses.
    """
    size, classes = _known(config)
    size, classes = train_size or size, num_classes or classes
    missing = [
        flag for flag, value in (("--train-size", size), ("--num-classes", classes)) if not value
    ]
    if missing:
        name = getattr(config.data.source, "name", "") or config.data.source.label or "the data"
        raise ValueError(
            f"the number of images and classes of {name} is not known: give {' and '.join(missing)}"
        )
    return DataFacts(train_size=size, num_classes=classes)


def _known(config: Config) -> tuple[int, int]:
    source = config.data.source
    name = getattr(source, "name", "").partition(":")[0].partition("/")[0]
    if isinstance(source, EmbeddedData):
        images = opening.open_train(config.data, labelled=False)
        return len(images), len(images.class_names)
    size, classes = KNOWN.get(name, (0, 0))
    size = _part(size, config.data.train_split)
    chosen = subset.number(size, classes=classes, per_class=config.data.per_class)
    if 0 < size < chosen:
        raise ValueError(
            f"config.data.per_class is {config.data.per_class}, but {name} has only {size} images"
            f" of {classes} classes in {config.data.train_split}"
        )
    return chosen, classes


def _part(size: int, split: str) -> int:
    """The images of train, or of a sub-split such as train[:99%]; 0 for any other split."""
    match = _PART.fullmatch(split)
    if not match:
        return 0
    ends = []
    for text, default in zip(match.groups(), (0, size), strict=True):
        if text is None:
            ends.append(default)
        elif text.endswith("%"):
            ends.append(math.floor(size * int(text[:-1]) / 100 + 0.5))
        else:
            ends.append(int(text))
    return max(0, min(ends[1], size) - ends[0])
