"""Features of images, for evaluators that need no head; and labels that two splits share.

Shapes: B images of a batch, N images of a split that count, D features.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.checkpoints import classes
from vit_jax.data.augment import normalize
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source, is_multi_label
from vit_jax.data.relabelled import Relabelled
from vit_jax.errors import RunFailed
from vit_jax.evaluators.contract import Context
from vit_jax.models.options import EncoderOptions
from vit_jax.parallel.mesh import replicated

INPUTS = ("image", "label", "mask")
Step = Callable[[Any, jax.Array], jax.Array]  # (parameters, uint8 (B, H, W, C)) -> float32 (B, D)


class Features(NamedTuple):
    """Features of the images of a split that are labelled and can be read, in its order."""

    values: np.ndarray  # float32 (N, D)
    labels: np.ndarray  # int32 (N,)
    numbers: np.ndarray  # int64 (N,), the places of the images in the split


def labelled(context: Context, *, evaluator: str) -> tuple[Source, Source]:
    """Training and held-out images with the same labels. Raises ValueError if that cannot be.

    `evaluator` is its name in messages.
    """
    train, held_out = context.train, context.held_out
    if train is None:
        raise ValueError(
            f"{evaluator} needs training images: name a run, or a recipe with --config"
        )
    for source in (train, held_out):
        if not source.class_names:
            raise ValueError(f"{evaluator} needs labels: {source.name} has none")
        if is_multi_label(source):
            raise ValueError(
                f"{evaluator} needs one class of each image: {source.name} has several"
            )
    match = classes.match(
        train.class_names,
        held_out.class_names,
        their_count=len(train.class_names),
        our_count=len(held_out.class_names),
    )
    if not match.kept:
        raise ValueError(
            f"{evaluator} needs the same classes in {train.name} and {held_out.name}: {match.note}"
        )
    if match.kind == "reordered":
        # `rows` gives the number in the training split for each held-out class.
        held_out = Relabelled(held_out, match.rows)
    return train, held_out


def bad_images(context: Context, source: Source) -> BadImages:
    """Counts the broken images of a split that is not the held-out one."""
    bad = context.bad
    return BadImages(size=len(source), max_bad=bad.max_bad, reported=bad.reported)


def of_images(context: Context, images: jax.Array, params: Any) -> jax.Array:
    """The input of the model's head, float32 (B, D), of uint8 images."""
    model = nnx.merge(context.graphdef, params)
    features = model.features(normalize(images, mean=context.mean, std=context.std))
    return features.astype(jnp.float32)


def of_layers(context: Context, images: jax.Array, params: Any) -> jax.Array:
    """The features after each of L blocks, one after the other: float32 (B, L * D).

    They are the class token, or the mean of the patches if there is none.
    """
    model, options = nnx.merge(context.graphdef, params), context.options
    assert isinstance(options, EncoderOptions), options
    images = normalize(images, mean=context.mean, std=context.std)
    tokens = model.encoder(images, return_intermediates=True)[1].features  # (L, B, T, D)
    if options.has_class_token:
        found = tokens[:, :, 0].astype(jnp.float32)
    else:
        found = tokens[:, :, options.prefix_tokens :].astype(jnp.float32).mean(axis=2)
    return jnp.swapaxes(found, 0, 1).reshape(len(images), -1)


def make_step(
    context: Context, of: Callable[[Context, jax.Array, Any], jax.Array] = of_images
) -> Step:
    """The jitted step of a kind of features; every process gets those of the whole batch."""

    @jax.jit
    def step(params: Any, images: jax.Array) -> jax.Array:
        return replicated(of(context, images, params))

    return step


def of_split(
    context: Context, source: Source, params: Any, step: Step, *, bad: BadImages | None = None
) -> Features:
    """The features of all images that count, on the host of every process.

    Raises RunFailed if there are none, and Interrupted if `context` says to stop.
    """
    whole = jax.jit(lambda labels, mask: (replicated(labels), replicated(mask)))
    parts: list[tuple[np.ndarray, ...]] = []
    with context.on_devices(source, inputs=INPUTS, bad=bad, labelled=True) as batches:
        for number, batch in enumerate(batches):
            values = step(params, batch["image"])
            labels, mask = map(np.asarray, whole(batch["label"], batch["mask"]))
            places = number * len(mask) + np.flatnonzero(mask)
            parts.append((np.asarray(values)[mask], labels[mask], places))
    found = Features(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    if not len(found.labels):
        raise RunFailed(
            f"none of the {len(source)} images of {source.name} is labelled and readable"
        )
    if broken := int((~np.isfinite(found.values).all(axis=1)).sum()):
        raise RunFailed(
            f"the features of {broken} of {len(found.labels)} images of {source.name} are not"
            " finite numbers: the model is damaged or has diverged"
        )
    return found
