"""Runs that train only the head, on features that are computed once instead of at every step.

The layers below do not train. So without augmentation an image has the same features at every step:
those of the image as evaluations see it, without dropout. They are computed when a run starts and
when it resumes, and every host keeps them all. Shapes: N training images, B examples of a batch,
H heads, D features.
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from flax import nnx

from vit_jax.data import featured
from vit_jax.data.augment import normalize
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batches
from vit_jax.data.reading import unlabelled_image
from vit_jax.data.record import UNKNOWN, Source, is_multi_label
from vit_jax.evaluators.contract import Context
from vit_jax.evaluators.features import make_step
from vit_jax.parallel.mesh import replicated
from vit_jax.training import measures
from vit_jax.training.design import Design


def features(plan: Design, params: Any, source: Source, *, bad: BadImages) -> featured.Features:
    """The features of all training images, in the model with these parameters.

    Raises RunFailed if an image has no label or too many are broken.
    """
    context = _context(plan, source, bad)
    step, whole, number = make_step(context, _pooled), jax.jit(replicated), len(source)
    values = np.zeros((number, *plan.batch[featured.NAME].shape[1:]), np.float32)
    several = (len(source.class_names),) if is_multi_label(source) else ()
    labels = np.zeros((number, *several), np.uint8 if several else np.int32)
    readable = np.zeros(number, bool)
    inputs, first = ("image", "label", "mask"), 0
    with context.on_devices(source, inputs=inputs, labelled=False) as batches:
        for batch in batches:
            ids = slice(first, min(first + context.batch_size, number))
            count = ids.stop - ids.start
            values[ids] = np.asarray(step(params, batch["image"]))[:count]
            labels[ids] = np.asarray(whole(batch["label"]))[:count]
            readable[ids] = np.asarray(whole(batch["mask"]))[:count]
            _check_labels(source, labels[ids], first)
            first = ids.stop
    return featured.Features(values=values, labels=labels, readable=readable)


def images(plan: Design, source: Source) -> Batches:
    """This process's rows of the images (B, H, W, C) that the features are computed from."""
    bad = BadImages(size=len(source), max_bad=plan.config.data.max_bad)
    return _context(plan, source, bad).batches(source, labelled=False)


def note(plan: Design, *, images: int) -> str:
    """A line on what is computed once, and how much memory of each host it takes."""
    size = images * math.prod(plan.batch[featured.NAME].shape[1:]) * 4 / 2**20
    return (
        f"note: the features of {images:,} images are computed now, once, of the images as"
        f" evaluations see them and without dropout; every host keeps {size:,.1f} MiB of them"
    )


def _context(plan: Design, source: Source, bad: BadImages) -> Context:
    """The training images, prepared as those of an evaluation."""
    found = measures.context_of(plan, train=None, held_out=source, bad=bad)
    # Before the first step a signal ends the process at once, so there is nothing to ask for.
    return dataclasses.replace(found, stop=lambda count: False)


def _pooled(context: Context, images: jax.Array, params: Any) -> jax.Array:
    """The features (B, H, D) of uint8 images."""
    model = nnx.merge(context.graphdef, params)
    return model.pooled(normalize(images, mean=context.mean, std=context.std))


def _check_labels(source: Source, labels: np.ndarray, first: int) -> None:
    """Raises RunFailed if an image has no label; `first` is the place of the first one."""
    if labels.ndim == 1 and len(missing := np.flatnonzero(labels == UNKNOWN)):
        raise unlabelled_image(f"{source.name}[{first + missing[0]}]")
