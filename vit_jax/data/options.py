"""What a config says of the data: every field, its default and its meaning."""

import dataclasses
from typing import Literal

from vit_jax import schema
from vit_jax.data.crops import CROPS, Crop
from vit_jax.data.sources import SOURCES, DataSource
from vit_jax.models.preprocessing import Fit, Interpolation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and what happens to them."""

    # Where images come from: the ones that ship with the package, folders named by class, or TFDS.
    source: DataSource = schema.choice(SOURCES, "embedded", key="source")
    train_split: str = "train"  # split to learn from; tfds: sub-splits such as "train[:99%]" too
    # Split to measure on. Unset: the first labelled one called validation, val, ..., or test.
    eval_split: str = ""
    # How training images are cut, on the host: a random box, a random displacement, the centre.
    crop: Crop = schema.choice(CROPS, "inception", key="crop")
    # How training images are resized.
    interpolation: Literal["linear", "bilinear_antialias", "bicubic_antialias"] = "linear"
    eval_interpolation: Interpolation = "area"  # how images are resized for evaluation
    # Evaluation: squash ignores the aspect ratio, crop_floor cuts as Hugging Face.
    eval_fit: Fit = "crop"
    crop_pct: float = 0.875  # evaluation: the centre crop's share of the resized short side
    # Turn images as their EXIF orientation says; off, as other trainers read them.
    orientation: bool = False
    # Mean of the pixels in [0, 1], for each channel; unset: as `init_from`, else the zoo's.
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()  # likewise; 0.5 and 0.5 give values in [-1, 1]
    # Go on with a run though its images or classes are others than when it began; see data.json.
    accept_changes: bool = False
    max_bad: float = 0.001  # share of unreadable images above which a run stops
    threads: int = 8  # decoding threads of a process
    prefetch: int = 2  # batches prepared ahead
