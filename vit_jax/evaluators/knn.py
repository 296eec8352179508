"""Nearest neighbours: classes of held-out images from training images with similar features.

This needs no head, so it measures pretraining without labels too. The vote is that of DINO
("Emerging Properties in Self-Supervised Vision Transformers", arXiv 2104.14294, section 4.1 and its
code). Shapes: Q queries, N images of the bank in batches of B, D features, k neighbours, K classes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.data.subset import spread
from vit_jax.duration import Duration
from vit_jax.errors import RunFailed
from vit_jax.evaluators.contract import Context, Evaluator, Measure, add_up
from vit_jax.evaluators.features import INPUTS, bad_images, labelled, of_images
from vit_jax.models.sharding import BATCH_AXES
from vit_jax.objectives import Direction, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn(Evaluator):
    """Top-1 and top-5 of a vote by the `k` training images with the largest cosine similarity.

    With k below 5, top-5 counts the first k classes, as in DINO: no more classes have a vote.
    """

    every: Duration = Duration()  # period in a run; unset: evaluate_every
    k: tuple[int, ...] = (20,)  # neighbours that vote; several numbers: metrics for each, top1_k20
    temperature: float = 0.07  # a vote weighs exp(similarity / temperature); 0: all weigh 1
    train_images: int = 0  # evenly spaced images of the training split to compare with; 0: all

    needs_train: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise ValueError(f"k is {self.k}: it must be at least 1, and no number may be twice")
        if not self.temperature >= 0:  # NaN is not
            raise ValueError(f"temperature is {self.temperature}: it must not be negative")
        if self.train_images < 0:
            raise ValueError(f"train_images is {self.train_images}: it must not be negative")

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {name: "max" for k in self.k for name in _names(k, of=self.k)}

    def open(self, context: Context) -> Measure:
        train, held_out = labelled(context, evaluator="kNN")
        train = spread(train, self.train_images)
        if max(self.k) > len(train):
            raise ValueError(
                f"kNN needs k = {max(self.k)} neighbours, but there are {len(train)} training"
                " images"
            )
        bad = bad_images(context, train)
        features = _feature_step(context)
        search = make_search(
            context.mesh,
            k=self.k,
            num_classes=len(held_out.class_names),
            temperature=self.temperature,
        )

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            bank = _bank(context, train, bad, functools.partial(features, params))
            found = _measure(context, held_out, bank, functools.partial(features, params), search)
            # A compiled program returns a dict in the order of its keys: k10, k100, k20.
            return {name: found[name] for name in (*self.metrics(context.objective), "count")}

        return measure


class Bank(NamedTuple):
    """Features of the training images, in batches whose rows are split over the devices."""

    features: jax.Array  # float32 (N / B, B, D), of length 1
    labels: jax.Array  # int32 (N / B, B)
    valid: jax.Array  # bool (N / B, B)


Features = Callable[[jax.Array], jax.Array]  # uint8 (B, H, W, C) -> float32 (B, D), of length 1
Search = Callable[[Bank, jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]


def make_search(mesh: Mesh, *, k: tuple[int, ...], num_classes: int, temperature: float) -> Search:
    """(bank, queries (Q, D), labels (Q,), mask (Q,)) -> sums of the metrics for each k, and count.

    Every device finds the nearest of its own rows, then the nearest of all devices are selected, so
    the result is exact. Of equal similarities the earlier training image goes first, on any mesh.
    """
    rows = P(None, BATCH_AXES)
    of_bank = (P(None, BATCH_AXES, None), rows, rows)

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(of_bank, rows, P()),
        out_specs=P(None, BATCH_AXES),
        check_vma=False,
    )
    def nearest_of_each(bank: tuple[jax.Array, ...], numbers: jax.Array, queries: jax.Array) -> Any:
        return _nearest(Bank(*bank), numbers, queries, k=max(k))

    @jax.jit
    def search(
        bank: Bank, queries: jax.Array, labels: jax.Array, mask: jax.Array
    ) -> dict[str, jax.Array]:
        batches, size = bank.labels.shape
        numbers = jnp.arange(batches * size, dtype=jnp.int32).reshape(batches, size)
        found = nearest_of_each(tuple(bank), numbers, queries)  # each (Q, devices * max(k))
        similarity, _, neighbours = jax.lax.sort(
            (-found[0], found[1], found[2]), dimension=1, num_keys=2
        )
        sums = {"count": mask.sum(dtype=jnp.float32)}
        finite = jnp.where(mask[:, None], jnp.isfinite(queries), True).all()
        invalid = jnp.where(finite, 0, jnp.nan)  # such a model has no accuracy
        for number in k:
            nearest = -similarity[:, :number], neighbours[:, :number]
            votes = _votes(*nearest, num_classes, temperature)
            _, best = jax.lax.top_k(votes, min(5, number, num_classes))
            hits = (best == labels[:, None]) & mask[:, None]
            top1, top5 = _names(number, of=k)
            sums[top1] = hits[:, 0].sum(dtype=jnp.float32) + invalid
            sums[top5] = hits.any(axis=1).sum(dtype=jnp.float32) + invalid
        return sums

    return search


def _names(k: int, *, of: tuple[int, ...]) -> tuple[str, str]:
    """The names of the metrics of a vote by k neighbours; k is in them if there are several."""
    suffix = f"_k{k}" if len(of) > 1 else ""
    return f"top1{suffix}", f"top5{suffix}"


def _nearest(
    bank: Bank, numbers: jax.Array, queries: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Similarity, number and label, (Q, k) each, of the nearest rows of this device.

    `numbers` (N / B, B) are those of the images in the training split.
    """
    count = len(queries)
    start = (
        jnp.full((count, k), -jnp.inf),
        jnp.full((count, k), jnp.iinfo(jnp.int32).max),
        jnp.zeros((count, k), jnp.int32),
    )

    def add(best: Any, batch: Any) -> tuple[Any, None]:
        (features, labels, valid), number = batch
        similarity = jnp.matmul(queries, features.T, precision=jax.lax.Precision.HIGHEST)
        similarity = jnp.where(valid[None], similarity, -jnp.inf)
        shape = similarity.shape
        new = similarity, jnp.broadcast_to(number, shape), jnp.broadcast_to(labels, shape)
        both = [jnp.concatenate(pair, axis=1) for pair in zip(best, new, strict=True)]
        # The numbers ascend, and of equal values `top_k` selects the first.
        values, index = jax.lax.top_k(both[0], k)
        return (values, *(jnp.take_along_axis(x, index, axis=1) for x in both[1:])), None

    best, _ = jax.lax.scan(add, start, (bank, numbers))
    return best


def _votes(
    similarity: jax.Array, neighbours: jax.Array, num_classes: int, temperature: float
) -> jax.Array:
    """Votes (Q, K) for each class by the neighbours, whose classes are (Q, k)."""
    found = jnp.isfinite(similarity)
    weight = jnp.ones_like(similarity)
    if temperature:  # less the largest, which changes no vote: exp(1 / 0.01) is not in float32
        weight = jnp.exp((similarity - similarity[:, :1]) / temperature)
    weight = jnp.where(found, weight, 0)
    of_class = jax.nn.one_hot(neighbours, num_classes, dtype=jnp.float32)
    return jnp.einsum("qk,qkc->qc", weight, of_class, precision=jax.lax.Precision.HIGHEST)


def _feature_step(context: Context) -> Callable[[Any, jax.Array], jax.Array]:
    def step(params: Any, images: jax.Array) -> jax.Array:
        found = of_images(context, images, params)
        return found / jnp.maximum(jnp.linalg.norm(found, axis=-1, keepdims=True), 1e-12)

    return jax.jit(step)


def _bank(context: Context, train: Source, bad: BadImages, features: Features) -> Bank:
    """Features of all training images. Raises Interrupted if `context` says to stop."""
    with context.on_devices(train, inputs=INPUTS, bad=bad, labelled=True) as batches:
        found = [(features(batch["image"]), batch["label"], batch["mask"]) for batch in batches]
    stacked = (jnp.stack(parts) for parts in zip(*found, strict=True))
    return Bank(*stacked)


def _measure(
    context: Context, held_out: Source, bank: Bank, features: Features, search: Search
) -> dict[str, float]:
    """Shares of hits among the labelled held-out images, and their number `count`."""

    def sums(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return search(bank, features(batch["image"]), batch["label"], batch["mask"])

    with context.on_devices(held_out, inputs=INPUTS, labelled=True) as batches:
        totals = add_up(map(sums, batches))
    count = totals.pop("count")
    if not count:
        raise RunFailed(f"kNN: none of {len(held_out)} held-out images has a label and is readable")
    return {name: value / count for name, value in totals.items()} | {"count": int(count)}
