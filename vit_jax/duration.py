"""Durations: a number of steps in one of several units."""

import dataclasses

from vit_jax.schema import OneUnit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Duration(OneUnit):
    """A number of steps, given in one unit; all zero means none."""

    steps: int = 0  # optimizer steps
    epochs: float = 0.0  # passes over the training split
    examples: int = 0  # training images
    percent: float = 0.0  # of the whole run

    def to_steps(self, *, batch_size: int, dataset_size: int, total_steps: int = 0) -> int:
        """The duration, rounded to whole steps; `percent` is that of `total_steps`."""
        if self.epochs:
            return round(self.epochs * dataset_size / batch_size)
        if self.examples:
            return round(self.examples / batch_size)
        if self.percent:
            return round(self.percent / 100 * total_steps)
        return self.steps
