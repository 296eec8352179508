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
from vit_jax.objectives.classification import Classification, one_hot_targets
from vit_jax.objectives.contract import Batch, Frozen, FrozenModel, Loss, TableFile

TEACHER = "teacher"  # its name among the frozen models
_ANSWERS = "teacher_answers"  # the name of the table in a batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Classification):
    """Classification, while the distillation head imitates a frozen teacher."""

    teacher: str = ""  # a run or a released file: a classifier of the same classes
    teacher_file: str = ""  # instead of `teacher`: its answers in a file of `vit_jax label`
    distillation: Literal["hard", "soft"] = "hard"  # imitate its class, or its probabilities
    alpha: float = 0.5  # weight of the teacher's part of the loss
    temperature: float = 1.0  # soft: divides the logits of teacher and student

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher and self.teacher_file:
            raise ValueError(
                "config.objective has both teacher and teacher_file: set only one of them"
            )
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
        if self.teacher_file:
            return {}
        return {TEACHER: FrozenModel(self.teacher, TEACHER, evaluated=False)}

    def tables(self) -> Mapping[str, TableFile]:
        if not self.teacher_file:
            return {}
        soft = self.distillation == "soft"
        return {_ANSWERS: TableFile(self.teacher_file, "teacher_file", logits=soft)}

    def prepare(self, batch: Batch, *, options: zoo.Options, key: jax.Array) -> Batch:
        batch = super().prepare(batch, options=options, key=key)
        if _ANSWERS not in batch:  # the teacher sees the augmented images
            return batch
        answers = batch[_ANSWERS]
        if self.distillation == "hard":
            targets = one_hot_targets(answers, num_classes=options.num_classes)
        else:  # NaN: the image could not be read when the file was made
            targets = jnp.nan_to_num(self._targets(answers))
        return batch | {"teacher_targets": targets}

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss:
        logits, imitation = model(batch["image"], key=key, return_heads=True)
        if self.teacher_file:
            taught = batch["teacher_targets"]
        else:
            taught = self._targets(jax.lax.stop_gradient(frozen[TEACHER](batch["image"])))
        base = self.supervised(logits, batch["targets"])
        imitated = imitation_loss(
            imitation, taught, kind=self.distillation, temperature=self.temperature
        )
        # Where the file has no answer, the teacher's part is 0 and the labels have its weight.
        weight = self.alpha * taught.sum(-1) if self.teacher_file else self.alpha
        values = (1 - weight) * base + self.alpha * imitated
        agree = (imitation.argmax(-1) == taught.argmax(-1)).astype(jnp.float32)
        extras = {"base_loss": base, "distillation_loss": imitated, "agreement": agree}
        return Loss(values, jnp.ones_like(values), extras)

    def _targets(self, logits: jax.Array) -> jax.Array:
        """The probabilities float32 (B, K) that the student imitates, from the teacher's logits."""
        logits = logits.astype(jnp.float32)
        if self.distillation == "hard":
            return jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=jnp.float32)
        return jax.nn.softmax(logits / self.temperature)


def imitation_loss(
    logits: jax.Array,  # (B, K)
    targets: jax.Array,  # (B, K), the teacher's probabilities, soft: at `temperature`
    *,
    kind: Literal["hard", "soft"],
    temperature: float = 1.0,
) -> jax.Array:
    """How far the student is from its teacher, float32 (B,).

    hard: cross-entropy with the teacher's probabilities: 1 for its class. soft: the
    Kullback-Leibler divergence of the probabilities at `temperature`, times temperature squared,
    divided by the number of classes: the original averages over all elements.
    """
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    if kind == "hard":
        return optax.softmax_cross_entropy(logits, targets)
    divergence = optax.kl_divergence(jax.nn.log_softmax(logits / temperature), targets)
    return divergence * temperature**2 / logits.shape[-1]
