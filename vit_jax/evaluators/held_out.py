"""The objective's measure of the held-out images: every image counts once, on any mesh."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.data import pipeline
from vit_jax.data.augment import normalize
from vit_jax.data.record import UNKNOWN
from vit_jax.duration import Duration
from vit_jax.errors import RunFailed
from vit_jax.evaluators import answers
from vit_jax.evaluators.contract import Context, Evaluator, Measure, add_up
from vit_jax.objectives import ANSWERS, Direction, Objective
from vit_jax.parallel.gather import gathering

EvalStep = Callable[..., dict[str, Any]]  # (params, batch, frozen) -> sums
COUNTS = ("count", "unlabelled", "broken")  # equal for the parameters and their average


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut(Evaluator):
    """The objective's metrics; for classification top-1, top-5, loss and calibration error."""

    every: Duration = Duration()  # period in a run; unset: evaluate_every

    needs_head: ClassVar[bool] = True

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return objective.metrics

    def open(self, context: Context) -> Measure:
        recorder = context.recorder
        if recorder:
            answers.check(context.objective, context.held_out)
        step = step_of(context, per_image=recorder is not None)

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            if recorder:
                recorder.begin(context.held_out)
            return measured(context, step, params, frozen, recorder=recorder)

        return measure


def step_of(context: Context, *, per_image: bool = False) -> EvalStep:
    """The jitted step for a context: see `make_eval_step`."""
    return make_eval_step(
        context.graphdef,
        objective=context.objective,
        mean=context.mean,
        std=context.std,
        bind=context.bind,
        per_image=per_image,
    )


def measured(
    context: Context,
    step: EvalStep,
    params: Any,
    frozen: Mapping[str, Any],
    *,
    recorder: answers.Recorder | None = None,
) -> dict[str, float]:
    """What `finish` returns for the held-out images of a context."""
    source = context.held_out
    with context.on_devices(source, inputs=pipeline.EVAL_ARRAYS) as batches:
        results: Iterator[dict[str, Any]] = (step(params, batch, frozen) for batch in batches)
        sums = map(recorder.take, results) if recorder else results
        return finish(add_up(sums), size=len(source), finished=context.objective.finished)


def make_eval_step(
    graphdef: nnx.GraphDef,
    *,
    objective: Objective,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    bind: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    per_image: bool = False,
) -> EvalStep:
    """The jitted step: the sums of the objective's `measure`, `count` () and `unlabelled` ().

    With `per_image` the fields of `answers.PerImage` for the batch too, under the name ANSWERS.
    """

    objective = objective.bound(mean=mean, std=std)

    def step(params: Any, batch: dict[str, jax.Array], frozen: Mapping[str, Any]) -> dict[str, Any]:
        model = gathering(nnx.merge(graphdef, params))
        batch = batch | {"image": normalize(batch["image"], mean=mean, std=std)}
        sums = objective.measure(model, batch, frozen=bind(frozen))
        counted = jnp.where(batch["mask"], jnp.float32(1), jnp.float32(0)).sum()
        several = batch["label"].ndim == 2  # then no image is without labels
        unknown = jnp.zeros_like(batch["mask"]) if several else batch["label"] == UNKNOWN
        unlabelled = jnp.sum(unknown & ~batch["mask"])
        answered = sums.pop(ANSWERS, None)
        if per_image:
            sums[ANSWERS] = answers.rows(batch, answered)
        return {**sums, "count": counted, "unlabelled": unlabelled}

    return jax.jit(step)


def finish(
    totals: dict[str, Any], *, size: int, finished: Callable[..., dict[str, float]]
) -> dict[str, float]:
    """The metrics of a split of `size` images, and `count`, the number of images that count.

    `totals` are the sums of an `EvalStep` over all batches, and `finished` is the objective's.
    `unlabelled` and `broken` count the images that were left out, if there are any. Raises
    ValueError if no image has a label, and RunFailed if no image could be read.
    """
    count, unlabelled = (int(totals.pop(name, 0)) for name in ("count", "unlabelled"))
    if not count and unlabelled:
        raise ValueError(f"nothing was evaluated: {unlabelled} of {size} images have no label")
    if not count:
        raise RunFailed(f"nothing was evaluated: none of {size} images could be read")
    left_out = {"unlabelled": unlabelled, "broken": size - count - unlabelled}
    metrics = finished(totals, count=count)
    return metrics | {"count": count} | {name: n for name, n in left_out.items() if n}
