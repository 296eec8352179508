"""Objectives: what training minimises. One file each, and a table; `contract` defines them."""

from vit_jax.objectives.beit import MaskedImageModeling
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.contract import (
    ANSWERS,
    Answers,
    Batch,
    Direction,
    Frozen,
    FrozenModel,
    Loss,
    Objective,
    Restored,
    TableFile,
)
from vit_jax.objectives.distillation import Distillation
from vit_jax.objectives.dvae import DiscreteVAE
from vit_jax.objectives.mae import MaskedAutoencoding
from vit_jax.objectives.masked_patch import MaskedPatchPrediction

__all__ = [
    "ANSWERS",
    "OBJECTIVES",
    "Answers",
    "Batch",
    "Direction",
    "Frozen",
    "FrozenModel",
    "Loss",
    "Objective",
    "Restored",
    "TableFile",
]

# By the name in a config.
OBJECTIVES: dict[str, type[Objective]] = {
    "beit": MaskedImageModeling,
    "classification": Classification,
    "distillation": Distillation,
    "dvae": DiscreteVAE,
    "mae": MaskedAutoencoding,
    "masked_patch": MaskedPatchPrediction,
}
