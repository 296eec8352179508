"""What a twin is: a recipe, and how the original code gets its weights, settings and draws."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from vit_jax.config import default_config
from vit_jax.training.design import Design

Batch = Mapping[str, np.ndarray]
# (batch, step) -> the random draws of this step. Arrays with axes have a row for every sample; what
# the whole batch shares has no axis.
Draws = Callable[[Batch, int], dict[str, np.ndarray]]


Frozen = Mapping[str, Any]  # parameters of the frozen models, on the device


def no_draws(plan: Design, frozen: Frozen) -> Draws:
    return lambda batch, step: {}


def nothing_to_prepare(config: ml_collections.ConfigDict, folder: str) -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Twin:
    """A run that this project and the original code train in lockstep."""

    about: str  # what the run exercises, for the table
    recipe: Callable[[ml_collections.ConfigDict], None]  # fills a config made by `base_config`
    peer: str  # the module of `peers` that trains the other side
    needs: str  # what to install or fetch for the peer
    layout: str  # the layout that has the parameters under the peer's names
    settings: Callable[[Design], dict[str, Any]]  # of the peer; plain JSON
    libraries: tuple[str, ...]  # of the peer, whose versions are reported
    checkout: str = ""  # folder of the peer's repository below --peers
    uses_torch: bool = True  # whether it runs in the environment of --peer-python
    draws: Callable[[Design, Frozen], Draws] = no_draws
    # Writes files that the recipe names to a folder.
    prepare: Callable[[ml_collections.ConfigDict, str], None] = nothing_to_prepare


def base_config(*, steps: int, size: int, data: str) -> ml_collections.ConfigDict:
    """A small ViT on real images: Fashion-MNIST, or folders of images at the path `data`."""
    config = default_config()
    config.image_size = (size, size)
    config.batch_size = 64
    config.total.steps = steps
    config.schedule.warmup.steps = max(steps // 10, 2)
    config.data.crop = "shift"
    config.data.shift = 2
    config.augment = ("value_range",)
    if data:
        config.data.source = "image_folder"
        config.data.path = data
    config.model.name = "DeiT-Ti/16"
    config.model.width, config.model.depth = 64, 4
    config.model.mlp_dim, config.model.num_heads = 128, 4
    config.model.patch_size = (size // 4, size // 4)
    config.model.remat = "none"
    return config


def sizes(plan: Design) -> dict[str, Any]:
    """The settings of every peer: the sizes of the model, the lengths, the value range."""
    options: Any = plan.options
    config = plan.config
    return {
        "image_size": options.image_size[0],
        "patch_size": options.patch_size[0],
        "classes": options.num_classes,
        "width": options.width,
        "depth": options.depth,
        "mlp_dim": options.mlp_dim,
        "heads": options.num_heads,
        "drop_path": options.drop_path,
        "mean": config.data.mean,
        "std": config.data.std,
        "steps": plan.lengths.total,
        "warmup": config.schedule.warmup.steps,
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": getattr(config.optimizer.rule, "weight_decay", 0.0),
        "clip_norm": config.optimizer.clip_norm,
    }
