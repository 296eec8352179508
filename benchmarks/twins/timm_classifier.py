"""timm's training of a classifier: AdamW as for DeiT, and LAMB as for DeiT III."""

from typing import Any

import ml_collections

from benchmarks.twins import draws
from benchmarks.twins.contract import Twin, sizes
from vit_jax.training.design import Design

_NEEDS = "pip install torch timm, and name that environment: --peer-python"
_MIX = {"name": "mix", "mixup_alpha": 0.8, "cutmix_alpha": 1.0}


def adamw(config: ml_collections.ConfigDict) -> None:
    config.augment = ("value_range", _MIX)
    config.objective.label_smoothing = 0.1
    config.model.drop_path = 0.1
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0


def _lamb(config: ml_collections.ConfigDict) -> None:
    config.model.name = "DeiT-III-S/16"
    config.augment = ("value_range", _MIX)
    config.objective.cross_entropy = "sigmoid_mean"
    config.objective.target_threshold = 0.0
    config.model.drop_path = 0.1
    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.clip_norm = 1.0


def settings(optimizer: str, loss: str) -> Any:
    def of_plan(plan: Design) -> dict[str, Any]:
        options: Any = plan.options
        objective: Any = plan.objective
        return sizes(plan) | {
            "optimizer": optimizer,
            "loss": loss,
            "smoothing": objective.label_smoothing,
            "layer_scale": options.layer_scale,
            "class_position": options.class_position,
        }

    return of_plan


ADAMW = Twin(
    about="AdamW, warm-up, cosine, decay, clipping, label smoothing, mixup and CutMix, drop-path",
    recipe=adamw,
    peer="timm_vit",
    needs=_NEEDS,
    libraries=("timm", "torch"),
    layout="timm",
    settings=settings("adamw", "softmax"),
    draws=draws.both(draws.mix, draws.kept_branches),
)

LAMB = Twin(
    about="LAMB, binary cross-entropy of both mixed classes, LayerScale, mixup, CutMix, drop-path",
    recipe=_lamb,
    peer="timm_vit",
    needs=_NEEDS,
    libraries=("timm", "torch"),
    layout="timm",
    settings=settings("lamb", "binary"),
    draws=draws.both(draws.mix, draws.kept_branches),
)
