"""What `embed` does, once its arguments are read.

Shapes: B images of a batch, N images of a part, T tokens, D features.
"""

import argparse
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import stopping
from vit_jax.checkpoints.load import load
from vit_jax.checkpoints.save import params_of
from vit_jax.commands import embedding_files
from vit_jax.commands.embedding_files import Part
from vit_jax.data import image_files, pipeline
from vit_jax.data.augment import normalize
from vit_jax.data.bad_images import BadImages
from vit_jax.data.image_files import ImageFiles
from vit_jax.errors import Interrupted
from vit_jax.images import transform_of
from vit_jax.models import zoo
from vit_jax.models.encoder import TaskModel
from vit_jax.parallel import agreement, multihost, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import facts

BATCHES = 16  # in a part

# uint8 (B, H, W, C) -> the features of B images on the host, float32
Embed = Callable[[dict[str, np.ndarray]], np.ndarray]


def embed(options: argparse.Namespace) -> str:
    """Writes the features of all images, or the rest of them, and returns a summary.

    Several processes make parts in turn, each on its own devices, and the primary process joins
    them; the summary of the other processes is "".
    """
    with agreement.Meeting() as meeting:
        embedding_files.check(options.output, overwrite=options.overwrite)
        source = image_files.below(options.images)
        model = load(
            options.workdir, step=options.step, substitute=True, image_size=options.image_size
        )
        of_tokens = tokens_function(model, features=options.features, layer=options.layer)
        made_by = _facts(options, model, source)
        meeting.end({"the features": json.dumps(made_by)})
    with agreement.Meeting():
        folder = embedding_files.parts_of(options.output)
        if multihost.is_primary():
            embedding_files.open_parts(folder, made_by)
    starts = range(0, len(source), made_by["images_in_a_part"])
    with agreement.Meeting():
        try:
            _make_parts(options, source, model, of_tokens, folder, starts)
        except (KeyboardInterrupt, Interrupted) as error:
            raise Interrupted("interrupted: the same command goes on") from error
    with agreement.Meeting():  # the other processes wait for the file
        if multihost.is_primary():
            return embedding_files.join(
                options.output, folder, source, starts=starts, dtype=options.dtype
            )
    return ""


def _make_parts(
    options: argparse.Namespace,
    source: ImageFiles,
    model: zoo.Model,
    of_tokens: Callable[[Any, jax.Array], jax.Array],
    folder: pathlib.Path,
    starts: range,
) -> None:
    """Makes the parts that this process is to make and that are not there yet."""
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(), jax.local_devices())
    count = mesh_lib.batch_parts(mesh)
    batch_size = -(-options.batch_size // count) * count
    bad = BadImages(size=len(source), max_bad=1.0)  # each is reported
    with jax.set_mesh(mesh):
        step = _step(model, of_tokens, mesh, batch_size=batch_size)
        for number in range(jax.process_index(), len(starts), jax.process_count()):
            if not embedding_files.has_part(folder, number):
                first = starts[number]
                part = dataclasses.replace(source, files=source.files[first : first + starts.step])
                made = _part(part, model, step, bad, batch_size=batch_size)
                embedding_files.write_part(folder, number, made, dtype=options.dtype)


def tokens_function(
    model: zoo.Model, *, features: str, layer: int | None
) -> Callable[[Any, jax.Array], jax.Array]:
    """(model, normalised images) -> features float32 (B, D), or (B, T, D) of all patches.

    Raises ValueError if the model does not have these features.
    """
    kind, options = model.options.kind, model.options
    if features == "head":
        if layer is not None:
            raise ValueError("--layer is for --features class, mean or patches: name one of them")
        return lambda model, images: model.features(images)
    if not isinstance(model, TaskModel):
        raise ValueError(f"a {kind} has no tokens of patches: use --features head")
    if features == "class" and not options.has_class_token:
        raise ValueError(f"this {kind} has no class token: use --features mean")
    depth, prefix = options.depth, options.prefix_tokens
    if layer is not None and not (1 <= layer <= depth or -depth <= layer <= -1):
        raise ValueError(f"--layer is {layer}: the model has the blocks 1 to {depth}")

    def tokens(model: Any, images: jax.Array) -> jax.Array:
        if layer is None:
            return model.encode(images)
        intermediates = model.encoder(images, return_intermediates=True)[1]
        return intermediates.features[layer - 1 if layer > 0 else layer]

    def chosen(model: Any, images: jax.Array) -> jax.Array:
        found = tokens(model, images)
        if features == "class":
            return found[:, 0].astype(jnp.float32)
        patches = found[:, prefix:].astype(jnp.float32)
        return patches if features == "patches" else patches.mean(axis=1)

    return chosen


def _step(
    model: zoo.Model,
    of_tokens: Callable[[Any, jax.Array], jax.Array],
    mesh: jax.sharding.Mesh,
    *,
    batch_size: int,
) -> Embed:
    """The images are split over the devices of a mesh, and each has the whole model."""
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    graphdef, state = nnx.split(model)
    nested = nnx.to_pure_dict(state)
    params = jax.device_put(nested, rules.tree_shardings(nested, mesh))

    @jax.jit
    def step(params: Any, images: jax.Array) -> jax.Array:
        images = normalize(images, mean=wanted.mean, std=wanted.std)
        return of_tokens(nnx.merge(graphdef, params), images)

    def features(batch: dict[str, np.ndarray]) -> np.ndarray:
        placed = mesh_lib.to_global({"image": batch["image"]}, mesh, batch_size=batch_size)
        return np.asarray(step(params, placed["image"]))

    return features


def _part(
    part: ImageFiles, model: zoo.Model, step: Embed, bad: BadImages, *, batch_size: int
) -> Part:
    """The features of some images: NaN of those that cannot be read. Raises Interrupted."""
    batches = pipeline.eval_batches(
        part,
        transform_of(model),
        batch_size=batch_size,
        bad=bad,
        labelled=False,
        interrupted=lambda waited: stopping.requested(),
    )
    found, readable = [], []
    with batches:
        for batch in batches:
            found.append(step(batch))
            readable.append(batch["mask"])
            if stopping.requested():
                raise Interrupted
    values, mask = (np.concatenate(arrays)[: len(part)] for arrays in (found, readable))
    values = values.copy()
    values[~mask] = np.nan
    return Part(values, ~mask)


def _facts(options: argparse.Namespace, model: zoo.Model, source: ImageFiles) -> dict[str, Any]:
    """What the features depend on, as plain JSON: parts are only used for the same features."""
    assert model.preprocessing is not None, "the model was not loaded"
    result_depends_on = {
        name: value
        for name, value in dataclasses.asdict(model.options).items()
        if name == "dtype" or name not in zoo.COMPUTE_FIELDS
    }
    found = {
        "images": source.identity().digest,
        "model": facts.digest(params_of(model)),
        "options": result_depends_on,
        "preprocessing": dataclasses.asdict(model.preprocessing),
        "features": options.features,
        "layer": options.layer,
        "dtype": options.dtype,
        "file": os.path.basename(options.output),
        "images_in_a_part": BATCHES * options.batch_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found))
    return plain
