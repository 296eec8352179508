"""The data of an evaluation: opened, with the labels of the model that is evaluated."""

import dataclasses
from collections.abc import Mapping

from vit_jax.checkpoints import class_lookup, classes
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

    held_out: Source  # labelled with the classes of the model, if an evaluator reads its head
    own: Source  # the same images with the labels of their dataset
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
    own = held_out
    if options.num_classes and any(evaluator.needs_head for evaluator in evaluators.values()):
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
    return EvaluationData(held_out=held_out, own=own, train=train, facts=known, note=note)


def relabelled(
    source: Source, *, class_names: tuple[str, ...], num_classes: int = 0, objective: Objective
) -> tuple[Source, str]:
    """The images of `source` with the labels of a model, and a note of what was assumed, or "".

    Labels are matched by the names of classes; the model may have classes without images. Raises
    ValueError if a class of the images is none of the model.
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
    if match.kind == "reordered":
        return Relabelled(source, match.rows), f"labels are matched by name: {match.note}"
    if match.kind == "same" or not source.class_names and match.kept:
        return source, match.note
    # Plain numbers are numbers of the model's classes only if the model has no names.
    known = class_lookup.of_names(class_names, count=num_classes, numbers=not class_names)
    try:
        numbers = known.find_all(source.class_names)
    except ValueError as error:
        if match.kept:
            return source, match.note
        raise ValueError(
            f"{source.name} has the classes {classes.described(source.class_names)}, the model"
            f" {classes.described(class_names, num_classes)}: train and evaluate on the same"
            f" classes ({match.note}; {error})"
        ) from error
    note = f"labels are matched by name: {len(numbers)} of the model's {num_classes} classes"
    return Relabelled(source, numbers, names=known.names), note
