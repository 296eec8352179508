"""The pictures of a run or a model by name, from a `Subject` to a figure."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis import figures, learned, learned_figures
from vit_jax.analysis.contract import NoPicture
from vit_jax.commands.predictions import classify
from vit_jax.commands.subject import Subject
from vit_jax.models import zoo
from vit_jax.models.model import Model

COUNTED = 480  # images whose visual tokens are counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture. `draw` raises NoPicture if it does not exist for the model."""

    draw: Callable[[Subject], Figure]
    images: bool = False  # whether it needs images


def _curves(subject: Subject) -> Figure:
    return figures.curves(subject.workdir)


def _predictions(subject: Subject) -> Figure:
    model = subject.model
    try:
        zoo.check_head(model.options)
    except ValueError as error:
        raise NoPicture(str(error)) from error
    records = subject.records(24)
    images = subject.pixels(records)
    best = [row[0] for row in classify(model, top=1)(images)]
    return figures.predictions(images, best, list(map(subject.class_name, records)))


def _rebuilt(model: Model, images: jax.Array) -> tuple[jax.Array, jax.Array] | None:
    """Rebuilt pixels in [0, 1] and visual tokens; None if the model has no codebook."""
    pixels, tokens = model.rebuilt(images), model.visual_tokens(images)
    return None if pixels is None or tokens is None else (pixels, tokens)


def _reconstructions(subject: Subject) -> Figure:
    rebuild = subject.computing(_rebuilt)
    if rebuild is None:
        raise NoPicture("the model cannot rebuild images from visual tokens")
    images = subject.shown()
    return figures.reconstructions(images, rebuild(images)[0])


def _codebook(subject: Subject) -> Figure:
    number = min(subject.measured or COUNTED, len(subject.source or ()))
    counts = np.zeros(getattr(subject.model.options, "vocabulary", 0), np.int64)
    found = subject.batches(lambda model, images: model.visual_tokens(images), number=number)
    for tokens in found:
        np.add.at(counts, tokens, 1)
    if not counts.any():
        raise NoPicture("the model has no codebook of visual tokens")
    return figures.codebook(counts, images=number)


def _filters(subject: Subject) -> Figure:
    return learned_figures.filters(learned.filters(subject.model, grey=subject.grey))


def _positions(subject: Subject) -> Figure:
    return learned_figures.position_similarity(learned.position_similarity(subject.model))


def _relative_bias(subject: Subject) -> Figure:
    return learned_figures.relative_biases(learned.relative_biases(subject.model))


# In the order in which they are drawn.
PICTURES: dict[str, Picture] = {
    "curves": Picture(draw=_curves),
    "predictions": Picture(draw=_predictions, images=True),
    "reconstructions": Picture(draw=_reconstructions, images=True),
    "codebook": Picture(draw=_codebook, images=True),
    "filters": Picture(draw=_filters),
    "positions": Picture(draw=_positions),
    "relative_bias": Picture(draw=_relative_bias),
}
