"""The objective's own measure of held-out images: every one counts once, on any mesh."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vit_jax.data.augment import normalize
from vit_jax.data.record import UNKNOWN
from vit_jax.duration import Duration
from vit_jax.errors import Interrupted, RunFailed
from vit_jax.evaluators.contract import Context, Evaluator, Measure
from vit_jax.objectives import Direction, Objective
from vit_jax.parallel.mesh import to_global

EvalStep = Callable[..., dict[str, jax.Array]]  # (params, batch, frozen) -> sums

INPUTS = ("image", "label", "sample_index", "mask")
COUNTS = ("count", "unlabelled", "broken")  # the same for every model of a run


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut(Evaluator):
    """What the objective measures: of classification top-1, top-5 and loss."""

    every: Duration = Duration()  # unset: evaluate_every

    needs_head: ClassVar[bool] = True

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return objective.metrics

    def open(self, context: Context) -> Measure:
        step = make_eval_step(
            context.graphdef,
            objective=context.objective,
            mean=context.mean,
            std=context.std,
            bind=context.bind,
        )

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            with context.batches(context.held_out) as batches:
                return evaluate(
                    step,
                    params,
                    batches,
                    frozen=frozen,
                    mesh=context.mesh,
                    batch_size=context.batch_size,
                    size=len(context.held_out),
                    stop=context.stop,
                )

        return measure


def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    objective: Objective,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bind: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> EvalStep:
    """(params, batch of INPUTS, frozen) -> sums of the objective's metrics, count, unlabelled."""

    def step(
        params: Any, batch: dict[str, jax.Array], frozen: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        model = nnx.merge(graphdef, params)
        batch = batch | {"image": normalize(batch["image"], mean=mean, std=std)}
        sums = objective.measure(model, batch, frozen=bind(frozen))
        counted = jnp.where(batch["mask"], jnp.float32(1), jnp.float32(0)).sum()
        unlabelled = jnp.sum((batch["label"] == UNKNOWN) & ~batch["mask"])
        return {**sums, "count": counted, "unlabelled": unlabelled}

    return jax.jit(step)


def evaluate(
    step: EvalStep,
    params: Any,
    batches: Iterator[dict[str, np.ndarray]],
    *,
    frozen: Mapping[str, Any],
    mesh: Mesh,
    batch_size: int,
    size: int,
    stop: Callable[[int], bool] = lambda count: False,
) -> dict[str, float]:
    """The mean of each metric over the examples, and `count`, the number of examples seen.

    Of the `size` examples some may have been left out: `unlabelled` and `broken` count them, where
    there are any. Raises ValueError where none has a label, RunFailed where none can be read, and
    Interrupted where `stop`, asked after each batch with their number so far, says so.
    """
    totals: dict[str, float] = collections.defaultdict(float)
    pending: dict[str, jax.Array] = {}
    for number, batch in enumerate(batches, start=1):
        arrays = {name: batch[name] for name in INPUTS}
        sums = step(params, to_global(arrays, mesh, batch_size=batch_size), frozen)
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


def _add(totals: dict[str, float], sums: dict[str, jax.Array]) -> None:
    # On the host in double precision: float32 counts stop being exact above 16 million.
    for name, value in sums.items():
        totals[name] += float(value)
