"""How accurate a classifier stays on corrupted images."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from vit_jax.data import pipeline
from vit_jax.data.corruptions import CORRUPTIONS, SEVERITIES, Corrupt
from vit_jax.duration import Duration
from vit_jax.evaluators import held_out
from vit_jax.evaluators.contract import Context, Evaluator, Measure, add_up
from vit_jax.objectives import Direction, Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(Evaluator):
    """Top-1 on images with the corruptions of ImageNet-C, and the mean over all of them."""

    every: Duration = Duration()  # period in a run; unset: evaluate_every
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)  # that images are given, one at a time
    severities: tuple[int, ...] = SEVERITIES  # strengths of each, 1 to 5

    needs_head: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, known in (("corruptions", tuple(CORRUPTIONS)), ("severities", SEVERITIES)):
            values = getattr(self, name)
            if unknown := [value for value in values if value not in known]:
                choices = ", ".join(map(str, known))
                raise ValueError(f"{name} has {unknown[0]!r}: choose some of {choices}")
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} is {values}: name at least one, and none twice")

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        return {
            "top1": "max",
            **dict.fromkeys((f"top1_{name}" for name in self.corruptions), "max"),
        }

    def open(self, context: Context) -> Measure:
        """Raises ValueError if the objective does not classify, or images have other channels."""
        if not context.objective.classifies:
            raise ValueError("robustness needs an objective that classifies images: leave it out")
        if context.options.channels not in (1, 3):
            raise ValueError(
                f"robustness needs images of 1 or 3 channels, the model takes"
                f" {context.options.channels}: leave it out"
            )
        step = held_out.step_of(context)
        versions = [Corrupt(name, one) for name in self.corruptions for one in self.severities]
        source, finished = context.held_out, context.objective.finished

        def measure(params: Any, frozen: Mapping[str, Any]) -> dict[str, float]:
            inputs = pipeline.EVAL_ARRAYS
            with context.on_devices(source, inputs=inputs, versions=versions) as batches:
                turns = zip(itertools.cycle(versions), batches)  # the first has no end
                totals = add_up(
                    {(version, name): value for name, value in step(params, batch, frozen).items()}
                    for version, batch in turns
                )
            top1, count = {}, 0.0
            for version in versions:
                own = {name: value for (of, name), value in totals.items() if of == version}
                found = held_out.finish(own, size=len(source), finished=finished)
                top1[version.corruption, version.severity] = found["top1"]
                count = found["count"]
            return self._named(top1) | {"count": count}

        return measure

    def _named(self, top1: Mapping[tuple[str, int], float]) -> dict[str, float]:
        """The mean over everything, over the severities of each corruption, and each value."""
        found = {"top1": float(np.mean(list(top1.values())))}
        for name in self.corruptions:
            found[f"top1_{name}"] = float(np.mean([top1[name, one] for one in self.severities]))
            for severity in self.severities:
                found[f"top1_{name}_{severity}"] = top1[name, severity]
        return found
