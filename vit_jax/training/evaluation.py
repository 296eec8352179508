"""Exact evaluation: every example counts once on any mesh and any number of hosts."""

import collections
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vit_jax.data import augment, pipeline
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import UNKNOWN, Source
from vit_jax.errors import Interrupted, RunFailed
from vit_jax.images import transform_of
from vit_jax.models import zoo
from vit_jax.models.zoo import Model
from vit_jax.objectives import classification
from vit_jax.parallel.mesh import MeshConfig, local_rows, make_mesh, to_global

EvalStep = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]

COUNTS = ("count", "unlabelled", "broken")  # the same for every model of a run
MAX_BAD = 0.001  # share of broken images above which nothing is measured of files


def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    num_classes: int,
    loss: classification.Kind,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> EvalStep:
    """(params, batch with image, label, mask) -> sums of top1, top5, loss, count, unlabelled."""

    def step(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        model = nnx.merge(graphdef, params)
        images = augment.normalize(batch["image"], mean=mean, std=std)
        targets = classification.one_hot_targets(batch["label"], num_classes=num_classes)
        sums = classification.metrics(model(images), targets, mask=batch["mask"], kind=loss)
        return {**sums, "unlabelled": jnp.sum(batch["label"] == UNKNOWN)}

    return jax.jit(step)


def evaluate(
    step: EvalStep,
    params: Any,
    batches: Iterator[dict[str, np.ndarray]],
    *,
    mesh: Mesh,
    batch_size: int,
    size: int,
    stop: Callable[[int], bool] = lambda count: False,
) -> dict[str, float]:
    """top1 and top5 as shares, loss in nats, and `count`, the number of examples seen.

    Of the `size` examples some may have been left out: `unlabelled` and `broken` count them, where
    there are any. Raises ValueError where none has a label, RunFailed where none can be read, and
    Interrupted where `stop`, asked after each batch with their number so far, says so.
    """
    totals: dict[str, float] = collections.defaultdict(float)
    pending: dict[str, jax.Array] = {}
    for number, batch in enumerate(batches, start=1):
        arrays = {name: batch[name] for name in ("image", "label", "mask")}
        sums = step(params, to_global(arrays, mesh, batch_size=batch_size))
        _add(totals, pending)  # one batch late, so that the device is never idle
        pending = sums
        if stop(number):
            raise Interrupted("the evaluation was given up")
    _add(totals, pending)
    count, unlabelled = (int(totals.pop(name, 0)) for name in ("count", "unlabelled"))
    if not count and unlabelled:
        raise ValueError(f"nothing was evaluated: {unlabelled} of {size} images have no label")
    if not count:
        raise RunFailed(f"nothing was evaluated: none of {size} images could be read")
    left_out = {"unlabelled": unlabelled, "broken": size - count - unlabelled}
    means = {name: value / count for name, value in totals.items()}
    return means | {"count": count} | {name: n for name, n in left_out.items() if n}


def evaluate_model(
    model: Model, source: Source, *, batch_size: int = 64, orient: bool = False
) -> dict[str, float]:
    """Measures a loaded model on labelled images, with its own preprocessing, on all devices.

    The images are split over the devices, the model is on each. With `orient` they are turned as
    their EXIF orientation says. Returns what `evaluate` does. Raises ValueError without a head.
    """
    zoo.check_head(model.options)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    mesh = make_mesh(MeshConfig())
    batch_size = -(-batch_size // mesh.size) * mesh.size
    graphdef, params = nnx.split(model)
    everywhere = jax.NamedSharding(mesh, jax.P())
    step = make_eval_step(
        graphdef,
        num_classes=model.options.num_classes,
        loss="softmax",
        mean=wanted.mean,
        std=wanted.std,
    )
    transform = transform_of(model, orient=orient)
    rows = local_rows(mesh, batch_size)
    bad = BadImages(size=len(source), max_bad=MAX_BAD, remedy="repair them, or leave them out")
    with (
        jax.set_mesh(mesh),
        pipeline.eval_batches(
            source, transform, batch_size=batch_size, rows=rows, bad=bad
        ) as batches,
    ):
        placed = jax.device_put(nnx.to_pure_dict(params), everywhere)
        return evaluate(step, placed, batches, mesh=mesh, batch_size=batch_size, size=len(source))


def _add(totals: dict[str, float], sums: dict[str, jax.Array]) -> None:
    # On the host in double precision: float32 counts stop being exact above 16 million.
    for name, value in sums.items():
        totals[name] += float(value)
