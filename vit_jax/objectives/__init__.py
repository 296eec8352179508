"""From the outputs of a model and the targets of a batch to a loss and its metrics."""

from vit_jax.objectives.classification import Classification

OBJECTIVES: dict[str, type] = {"classification": Classification}
