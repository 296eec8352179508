"""What is minimised: one file an objective, and a table of them. `contract` says what each gives.

From the outputs of a model and a batch to a loss and its metrics.
"""

from vit_jax.objectives.classification import Classification
from vit_jax.objectives.contract import Batch, Direction, Frozen, FrozenModel, Loss, Objective
from vit_jax.objectives.distillation import Distillation
from vit_jax.objectives.mae import MaskedAutoencoding

__all__ = ["OBJECTIVES", "Batch", "Direction", "Frozen", "FrozenModel", "Loss", "Objective"]

# By the name that a config gives them.
OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "distillation": Distillation,
    "mae": MaskedAutoencoding,
}
