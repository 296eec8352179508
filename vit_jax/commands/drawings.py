"""The pictures of a run or a model by name, from a `Subject` to a figure."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vit_jax.analysis import (
    attention,
    attention_figures,
    bands,
    components,
    curves,
    figures,
    learned,
    learned_figures,
)
from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints import imagenet
from vit_jax.commands import restoring
from vit_jax.commands.classifying import classify
from vit_jax.commands.judged import Function
from vit_jax.commands.subject import SHOWN, Subject
from vit_jax.models import zoo
from vit_jax.models.model import Model

COUNTED = 480  # images whose visual tokens are counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture. `draw` raises NoPicture if it does not exist for the model."""

    draw: Callable[[Subject], Figure]
    images: bool = False  # whether it needs images


def _curves(subject: Subject) -> Figure:
    return curves.curves({"": [bands.read(subject.workdir)]})


def _predictions(subject: Subject) -> Figure:
    model = subject.model
    try:
        zoo.check_head(model.options)
    except ValueError as error:
        raise NoPicture(str(error)) from error
    records = subject.records(SHOWN)
    images = subject.pixels(records)
    names = imagenet.class_names(model)
    best_of = classify(model, top=1, names=names)
    best = [row[0] for row in best_of(images)]
    shown = dict(zip(model.class_names, names, strict=False))  # words instead of synsets
    truth = [
        shown.get(name, name) for name in (subject.class_name(record.label) for record in records)
    ]
    return figures.predictions(images, best, truth)


def _confusion(subject: Subject) -> Figure:
    found = subject.judged
    note = f"{found.right} of {len(found.labels)} images are predicted right"
    return figures.confusion(found.confusion(), found.names, note=note)


def _mistakes(subject: Subject) -> Figure:
    found = subject.judged
    worst = found.worst(SHOWN)
    if not len(worst):
        raise NoPicture(f"all of {len(found.labels)} images are predicted right")
    names = found.names
    return figures.predictions(
        subject.pixels([subject.read(int(found.places[i])) for i in worst]),
        [(names[found.predicted[i]], float(found.probabilities[i])) for i in worst],
        [names[found.labels[i]] for i in worst],
        title=f"Mistakes of the highest loss, of {len(found.labels)} images",
    )


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


def _masked(subject: Subject) -> Figure:
    images = subject.shown(9)
    seen, predicted, note = restoring.restored(subject, images)
    covered = images[:, : seen.shape[1], : seen.shape[2]] / 255
    return figures.restored(covered, seen, predicted, note=note)


def _attention_distance(subject: Subject) -> Figure:
    options, number = subject.model.options, min(subject.measured or 128, len(subject.source or ()))
    _check_attention(subject)
    between = attention.distances(options.grid, options.covered)

    def measure(model: Model, images: jax.Array) -> jax.Array | None:
        weights = model.attention_weights(images)
        assert weights is not None, "checked"
        return attention.sum_of_distances(weights, jnp.asarray(between, jnp.float32))

    totals = sum(np.asarray(sums, np.float64) for sums in subject.batches(measure, number=number))
    return attention_figures.attention_distance(
        np.asarray(totals) / number, equal=float(between.mean()), images=number
    )


def _rollout(subject: Subject) -> Figure:
    options = _check_attention(subject)

    def roll(model: Model, images: jax.Array) -> jax.Array:
        weights = model.attention_weights(images)
        assert weights is not None, "checked"
        return attention.rollout(
            weights,
            prefix=options.prefix_tokens,
            class_token=options.pool.startswith("token"),  # else the output does not read it
        )

    images, maps = _of_images(subject, roll, number=12)
    return attention_figures.rollout(images, _over(subject, maps))


def _class_attention(model: Model, images: jax.Array) -> jax.Array:
    """The attention of the class token, (B, L, H, N), as a multiple of equal attention."""
    weights = model.attention_weights(images)
    assert weights is not None, "checked"
    of_token = attention.of_class_token(weights, prefix=model.options.prefix_tokens)
    return jnp.moveaxis(of_token, 1, 0) * of_token.shape[-1]


def _check_class_token(subject: Subject) -> None:
    if not _check_attention(subject).has_class_token:
        raise NoPicture("the model has no class token")


def _attention(subject: Subject) -> Figure:
    _check_class_token(subject)
    images, maps = _of_images(subject, lambda *of: _class_attention(*of)[:, -1], number=6)
    return attention_figures.class_attention(images, _over(subject, maps))


def _attention_layers(subject: Subject) -> Figure:
    _check_class_token(subject)
    images, maps = _of_images(subject, _class_attention, number=1)
    by_place = maps[0].reshape(*maps.shape[1:3], *subject.model.options.grid)
    return attention_figures.layers_attention(images[0], by_place)


def _features(subject: Subject) -> Figure:
    if subject.computing(lambda model, images: model.grid_features(images)) is None:
        raise NoPicture("the model has no features of places")
    images, found = _of_images(subject, lambda model, of: model.grid_features(of), number=16)
    return attention_figures.feature_colours(images, components.colours(found))


def _check_attention(subject: Subject) -> Any:
    """The options of a model whose patches attend to all others. Raises NoPicture otherwise."""
    if subject.computing(lambda model, images: model.attention_weights(images)) is None:
        raise NoPicture(
            f"the model, a {subject.model.options.kind}, has no attention between all patches"
        )
    return subject.model.options


def _of_images(
    subject: Subject, function: Function, *, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread images uint8 (B, H, W, C), and what `function` returns for them."""
    return subject.shown(number), np.concatenate(list(subject.batches(function, number=number)))


def _over(subject: Subject, maps: np.ndarray) -> np.ndarray:
    """Maps (..., N) of patches at every pixel of the model's images."""
    options = subject.model.options
    return attention.over_image(
        maps, grid=options.grid, covered=options.covered, size=options.image_size
    )


# In the order in which they are drawn.
PICTURES: dict[str, Picture] = {
    "curves": Picture(draw=_curves),
    "predictions": Picture(draw=_predictions, images=True),
    "confusion": Picture(draw=_confusion, images=True),
    "mistakes": Picture(draw=_mistakes, images=True),
    "reconstructions": Picture(draw=_reconstructions, images=True),
    "codebook": Picture(draw=_codebook, images=True),
    "masked": Picture(draw=_masked, images=True),
    "filters": Picture(draw=_filters),
    "positions": Picture(draw=_positions),
    "relative_bias": Picture(draw=_relative_bias),
    "attention_distance": Picture(draw=_attention_distance, images=True),
    "rollout": Picture(draw=_rollout, images=True),
    "attention": Picture(draw=_attention, images=True),
    "attention_layers": Picture(draw=_attention_layers, images=True),
    "features": Picture(draw=_features, images=True),
}
