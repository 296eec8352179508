"""What a pretrained model makes of the hidden patches of images, for the picture `masked`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.analysis.contract import NoPicture
from vit_jax.checkpoints.load import assemble
from vit_jax.commands.subject import Subject
from vit_jax.config import MeshConfig
from vit_jax.data.record import DataFacts
from vit_jax.models.model import Model
from vit_jax.objectives import Objective
from vit_jax.objectives.pixels import denormalised, joined, normalised
from vit_jax.parallel.mesh import make_mesh
from vit_jax.training import frozen

Decode = Callable[[jax.Array], jax.Array]
ONE_TOKEN = jax.ShapeDtypeStruct((1, 1, 1), jnp.int32)


def restored(subject: Subject, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """What the model sees of images uint8 (B, H, W, C), what it predicts, and a note about it.

    The arrays are in [0, 1], cut to whole patches; what is hidden is NaN. The masks are those of
    the first images of an evaluation. Raises NoPicture if the model predicts no hidden patches.
    """
    objective, model = subject.objective, subject.model
    if objective is None:
        raise NoPicture("the model does not predict hidden patches")
    expects, options = model.preprocessing, model.options
    assert expects is not None, "the model was not loaded"
    mean, std = expects.mean, expects.std
    bound = objective.bound(mean=mean, std=std)
    models, decode = _frozen(objective, subject)

    def restore(model: Model, images: jax.Array) -> list[jax.Array] | None:
        indices = jnp.arange(len(images), dtype=jnp.uint32)
        sample = jnp.stack([jnp.zeros_like(indices), indices], axis=1)
        batch = {"image": images, "sample_index": sample}
        found = bound.restored(model, batch, frozen=models, decode=decode)
        if found is None:
            return None
        sizes = {"grid": options.grid, "patch_size": options.patch_size}
        return [denormalised(joined(patches, **sizes), mean=mean, std=std) for patches in found]

    compute = subject.computing(restore)
    if compute is None:
        reason = ", or has no decoder for them" if objective.frozen_models() else ""
        raise NoPicture(f"the objective of the run predicts no hidden patches{reason}")
    seen, predicted = compute(images)
    return seen.clip(0, 1), predicted.clip(0, 1), objective.restoring


def _frozen(objective: Objective, subject: Subject) -> tuple[dict[str, Any], Decode | None]:
    """The tokenizer of an objective as a function of images, and its decoder if it has one."""
    model = subject.model
    expects, wanted = model.preprocessing, objective.frozen_models()
    assert expects is not None, "the model was not loaded"
    if any(one.has_classes for one in wanted.values()):
        return {}, None  # a teacher
    try:
        loaded = {
            name: frozen.read_model(
                one.path,
                f"config.objective.{one.field}",
                DataFacts(train_size=0),
                has_classes=False,
            )
            for name, one in wanted.items()
        }
        frozen.check_same(subject.workdir, loaded)
    except ValueError as error:  # it was moved, or is another one by now
        raise NoPicture(str(error)) from error
    value_range = {"mean": expects.mean, "std": expects.std}
    designs = frozen.designs(
        loaded,
        objective=objective,
        options=model.options,
        mesh=make_mesh(MeshConfig()),
        **value_range,
    )
    tokenizers = (assemble(one.options, dict(one.params)) for one in loaded.values())
    decoders = (
        _decoder(tokenizer, size=model.options.covered, **value_range)
        for tokenizer in tokenizers
        if jax.eval_shape(tokenizer.decoded, ONE_TOKEN) is not None
    )
    return frozen.binder(designs)(frozen.place(loaded, designs)), next(decoders, None)


def _decoder(
    tokenizer: Model, *, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> Decode:
    """A function from visual tokens (B, h, w) to images of this size, normalised."""

    def decode(tokens: jax.Array) -> jax.Array:
        pixels = tokenizer.decoded(tokens)
        assert pixels is not None, "the tokenizer has a decoder"
        shape = (len(pixels), *size, pixels.shape[-1])
        resized = jax.image.resize(pixels, shape, "bicubic", antialias=True)
        if len(mean) == 1:
            resized = resized.mean(axis=-1, keepdims=True)
        return normalised(resized, mean=mean, std=std)

    return decode
