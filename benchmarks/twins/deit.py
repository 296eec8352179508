"""DeiT: a student learns from labels and, by a second token, from a teacher in timm's layout."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from benchmarks.twins import draws, timm_classifier
from benchmarks.twins.initial import initial
from vit_jax.checkpoints import save
from vit_jax.checkpoints.load import Checkpoint
from vit_jax.models import zoo
from vit_jax.training.design import Design

_TEACHER = {"width": 32, "depth": 2, "mlp_dim": 64, "num_heads": 2}


def _recipe(config: ml_collections.ConfigDict) -> None:
    timm_classifier.adamw(config)
    config.model.name = "DeiT-distilled-Ti/16"
    config.objective.name = "distillation"


def _teacher(config: ml_collections.ConfigDict, folder: str) -> None:
    """Writes a ViT with random weights, whose answers depend on the image all the same."""
    sizes = {"image_size": config.image_size, "patch_size": config.model.patch_size}
    options = zoo.options("DeiT-Ti/16", num_classes=10, **sizes, **_TEACHER)
    preprocessing = zoo.preprocessing("DeiT-Ti/16", image_size=options.image_size)
    path = pathlib.Path(folder, "teacher.safetensors")
    made = Checkpoint(options=options, params=initial(options), preprocessing=preprocessing)
    save.write(made, path, layout="timm")
    config.objective.teacher = str(path)


def _settings(plan: Design) -> dict[str, Any]:
    objective: Any = plan.objective
    names = {"num_heads": "heads"}
    return timm_classifier.settings("adamw", "softmax")(plan) | {
        "teacher": objective.teacher,
        "teacher_sizes": {names.get(name, name): size for name, size in _TEACHER.items()},
        "alpha": objective.alpha,
    }


HARD = dataclasses.replace(
    timm_classifier.ADAMW,
    about="hard distillation by a token, with the training of timm_adamw",
    recipe=_recipe,
    peer="deit",
    needs="clone github.com/facebookresearch/deit there, and install torch and timm",
    checkout="deit",
    layout="deit",
    settings=_settings,
    draws=draws.both(draws.mix, draws.kept_branches),
    prepare=_teacher,
)
