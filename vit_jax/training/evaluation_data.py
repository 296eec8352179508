"""The data of an evaluation: opened, with the labels of the model that is evaluated."""

import dataclasses
from collections.abc import Mapping

from vit_jax.checkpoints import classes
from vit_jax.config import Config
from vit_jax.data import opening
from vit_jax.data.record import DataFacts, Source
from vit_jax.data.relabelled import Relabelled
from vit_jax.evaluators import Evaluator
from vit_jax.models import zoo
from vit_jax.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The images for an evaluation."""

    held_out: Source  # labelled with the classes of the model
    train: Source | None  # None where no evaluator needs it
    facts: DataFacts
    note: str  # what was assumed of the labels, or ""


def open_data(
    config: Config,
    evaluators: Mapping[str, Evaluator],
    class_names: tuple[str, ...],
    options: zoo.Options,
) -> EvaluationData:
    """The data of a config for a model with these classes. Raises ValueError if they differ."""
    labelled = "label" in config.objective.inputs
    held_out, note, number = opening.open_eval(config.data, labelled=labelled), "", 0
    if options.num_classes:
        number = options.num_classes
        held_out, note = relabelled(
            held_out, class_names=class_names, num_classes=number, objective=config.objective
        )
    elif labelled:
        class_names, number = held_out.class_names, len(held_out.class_names)
    train = None
    if any(evaluator.needs_train for evaluator in evaluators.values()):
        train = opening.open_train(config.data)
    size = len(train) if train else 0
    known = DataFacts(train_size=size, class_names=class_names, num_classes=number)
    return EvaluationData(held_out=held_out, train=train, facts=known, note=note)


def relabelled(
    source: Source, *, class_names: tuple[str, ...], num_classes: int = 0, objective: Objective
) -> tuple[Source, str]:
    """The images of `source` with the labels of a model, and a note of what was assumed, or "".

    Labels are matched by the names of classes. Raises ValueError if the classes differ.
    """
    if "label" not in objective.inputs:
        return source, ""
    num_classes = num_classes or len(class_names)
    match = classes.match(
        class_names,
        source.class_names,
        their_count=num_classes,
        our_count=len(source.class_names),
    )
    if not match.kept:
        raise ValueError(
            f"{source.name} has the classes {classes.described(source.class_names)}, the model"
            f" {classes.described(class_names, num_classes)}: train and evaluate on the same"
            f" classes ({match.note})"
        )
    if match.kind == "reordered":
        return Relabelled(source, match.rows), f"labels are matched by name: {match.note}"
    return source, match.note
