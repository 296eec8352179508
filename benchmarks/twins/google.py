"""Google's codebases in JAX: fine-tuning of vision_transformer, pretraining of big_vision."""

from typing import Any

import ml_collections

from benchmarks.twins.contract import Twin, sizes
from vit_jax.training.design import Design

_WEIGHT_DECAY = 1e-4  # big_vision's `wd`, which the rate does not multiply


def _fine_tuning(config: ml_collections.ConfigDict) -> None:
    config.model.name = "Ti/16"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.moment_dtype = "bfloat16"
    config.optimizer.clip_norm = 1.0


def _pretraining(config: ml_collections.ConfigDict) -> None:
    config.model.name = "Ti/16"
    config.model.pool = "gap"
    config.objective.cross_entropy = "sigmoid"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = _WEIGHT_DECAY / config.optimizer.learning_rate
    config.optimizer.clip_norm = 1.0
    config.schedule.decay = "rsqrt"
    config.schedule.timescale.steps = 200
    config.schedule.cooldown.steps = config.total.steps // 5


def _pretraining_settings(plan: Design) -> dict[str, Any]:
    rule: Any = plan.config.optimizer.rule
    decay: Any = plan.config.schedule.decay
    return sizes(plan) | {
        "b2_cap": rule.b2_cap,
        "wd": _WEIGHT_DECAY,
        "timescale": decay.timescale.steps,
        "cooldown": plan.config.schedule.cooldown.steps,
    }


VISION_TRANSFORMER = Twin(
    about="fine-tuning: SGD, momentum in bfloat16, clipping, cosine",
    recipe=_fine_tuning,
    peer="google_vit",
    needs="clone github.com/google-research/vision_transformer there",
    libraries=("jax", "flax", "optax"),
    checkout="vision_transformer",
    layout="vit_jax",
    settings=sizes,
    uses_torch=False,
)

BIG_VISION = Twin(
    about="pretraining: Adafactor, binary cross-entropy, clipping, inverse root with cooldown",
    recipe=_pretraining,
    peer="big_vision_vit",
    needs="clone github.com/google-research/big_vision there, and install einops",
    libraries=("jax", "flax", "optax"),
    checkout="big_vision",
    layout="big_vision",
    settings=_pretraining_settings,
    uses_torch=False,
)
