"""The part of a config about data: every field, its default and its meaning."""

import dataclasses
from typing import Literal

from vit_jax import schema
from vit_jax.data.crops import CROPS, Crop
from vit_jax.data.sampling import SAMPLINGS, Sampling
from vit_jax.data.sources import SOURCES, DataSource
from vit_jax.models.preprocessing import Fit, Interpolation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and what happens to them."""

    # Where images come from: those that ship with the package, folders named by class, lists of
    # classes, or TFDS.
    source: DataSource = schema.choice(SOURCES, "embedded", key="source")
    train_split: str = "train"  # split to train on; tfds has sub-splits too, as "train[:99%]"
    # Split to evaluate on. Unset: the first labelled one named validation, val, ..., or test.
    eval_split: str = ""
    # Train on this many images of each class only, at equal distances in their order; 0: on all.
    per_class: int = 0
    # How often each class is trained on: as often as it has images, or by a power of that number.
    sampling: Sampling = schema.choice(SAMPLINGS, "uniform", key="sampling")
    # How training images are cropped: a random box, a random part that is as large as possible, a
    # random displacement, the centre.
    crop: Crop = schema.choice(CROPS, "inception", key="crop")
    # Repeated augmentation: each image is this many times in a row in a batch, each time with
    # another crop and other augmentations. The length of an epoch in steps stays the same.
    repeats: int = 1
    # How training images are resized.
    interpolation: Literal["linear", "bilinear_antialias", "bicubic_antialias"] = "linear"
    eval_interpolation: Interpolation = "area"  # how images are resized for evaluation
    # Evaluation: squash ignores the aspect ratio, crop_floor crops like Hugging Face.
    eval_fit: Fit = "crop"
    crop_pct: float = 0.875  # evaluation: the centre crop's share of the resized short side
    # Turn images as their EXIF orientation says. Off by default, as in other trainers.
    orientation: bool = False
    # Mean of pixels in [0, 1] for each channel. Unset: that of `init_from`, else of the zoo.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()  # the same for std; mean and std of 0.5 give values in [-1, 1]
    # Continue a run although its images or classes have changed; see data.json.
    accept_changes: bool = False
    max_bad: float = 0.001  # share of unreadable images above which a run stops
    threads: int = 8  # decoding threads of each process
    prefetch: int = 2  # batches prepared ahead
