"""Distillation through a token: one head learns from the labels, another from a teacher.

"Training data-efficient image transformers & distillation through attention" (arXiv 2012.12877),
section 4, and the loss of its code. Shapes: B examples, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vit_jax.data.record import DataFacts
from vit_jax.models import zoo
from vit_jax.objectives.classification import Classification, cross_entropy
from vit_jax.objectives.contract import Batch, Frozen, FrozenModel, Loss

TEACHER = "teacher"  # its name among the frozen models


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Classification):
    """Classification, while the distillation head imitates a frozen teacher."""

    teacher: str = ""  # a run or a released file: a classifier of the same classes
    distillation: Literal["hard", "soft"] = "hard"  # imitate its class, or its probabilities
    alpha: float = 0.5  # weight of the teacher's part of the loss
    temperature: float = 1.0  # soft: divides the logits of teacher and student

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"config.objective.alpha is {self.alpha}: it must be in [0, 1]")
        if not self.temperature > 0:
            raise ValueError(
                f"config.objective.temperature is {self.temperature}: it must be positive"
            )

    def model(self, base: zoo.Options, facts: DataFacts) -> zoo.Options:
        options = super().model(base, facts)
        if getattr(options, "heads", 1) != 2:
            raise ValueError(
                "config.objective is distillation, but the model has no second head to learn from"
                " the teacher: name a model with two heads, such as DeiT-distilled-Ti/16"
            )
        return options

    def frozen_models(self) -> Mapping[str, FrozenModel]:
        return {TEACHER: FrozenModel(self.teacher, TEACHER, evaluated=False)}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        logits, imitation = model(batch["image"], key=key, return_heads=True)
        taught = jax.lax.stop_gradient(frozen[TEACHER](batch["image"]))
        base = cross_entropy(logits, batch["targets"], kind=self.cross_entropy)
        imitated = imitation_loss(
            imitation, taught, kind=self.distillation, temperature=self.temperature
        )
        values = (1 - self.alpha) * base + self.alpha * imitated
        agree = (imitation.argmax(-1) == taught.argmax(-1)).astype(jnp.float32)
        extras = {"base_loss": base, "distillation_loss": imitated, "agreement": agree}
        return Loss(values, jnp.ones_like(values), extras)


def imitation_loss(
    logits: jax.Array,  # (B, K)
    teacher: jax.Array,  # (B, K), logits
    *,
    kind: Literal["hard", "soft"],
    temperature: float = 1.0,
) -> jax.Array:
    """How far the student is from its teacher, float32 (B,).

    hard: cross-entropy with the teacher's class. soft: the Kullback-Leibler divergence of the
    probabilities at `temperature`, times temperature squared, divided by the number of classes: the
    original averages over all elements.
    """
    logits, teacher = logits.astype(jnp.float32), teacher.astype(jnp.float32)
    if kind == "hard":
        return optax.softmax_cross_entropy_with_integer_labels(logits, teacher.argmax(-1))
    ours = jax.nn.log_softmax(logits / temperature)
    theirs = jax.nn.log_softmax(teacher / temperature)
    divergence = (jnp.exp(theirs) * (theirs - ours)).sum(-1)
    return divergence * temperature**2 / logits.shape[-1]
