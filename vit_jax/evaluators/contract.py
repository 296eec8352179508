"""What an evaluator is, and what it is given."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from flax import nnx
from jax.sharding import Mesh

from vit_jax.data import pipeline
from vit_jax.data.bad_images import BadImages
from vit_jax.data.preprocess import EvalTransform
from vit_jax.data.record import Source
from vit_jax.duration import Duration
from vit_jax.models.zoo import Options
from vit_jax.objectives import Direction, Objective
from vit_jax.parallel.mesh import local_rows

# From the parameters of a model, a nested dict placed on the mesh, and those of the frozen models
# by name, to what was found.
Measure = Callable[[Any, Mapping[str, Any]], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """A model without its parameters, the data that it is judged on, and where this runs."""

    graphdef: nnx.GraphDef
    options: Options
    objective: Objective
    mean: tuple[float, ...]  # of the pixels in [0, 1]
    std: tuple[float, ...]
    mesh: Mesh
    held_out: Source  # its labels are those of the model
    train: Source | None  # None where only held-out images were given
    transform: EvalTransform
    batch_size: int  # a multiple of what the mesh splits a batch into
    bad: BadImages  # of the held-out images
    # Makes models of the parameters of the frozen ones.
    bind: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    threads: int = 8  # decoding threads of this process
    prefetch: int = 2  # batches prepared ahead
    stop: Callable[[int], bool] = lambda count: False  # asked after each batch with their number
    interrupted: Callable[[], bool] = lambda: False  # asked while the next images are not ready

    def batches(
        self, source: Source, *, bad: BadImages | None = None, labelled: bool | None = None
    ) -> pipeline.Batches:
        """This process's rows of all images of a split, as `transform` makes them.

        Images without a label are left out where `labelled`; unset: where the objective needs them.
        """
        if labelled is None:
            labelled = "label" in self.objective.inputs
        return pipeline.eval_batches(
            source,
            self.transform,
            batch_size=self.batch_size,
            rows=local_rows(self.mesh, self.batch_size),
            threads=self.threads,
            prefetch=self.prefetch,
            bad=bad or self.bad,
            labelled=labelled,
            interrupted=self.interrupted,
        )


class Evaluator(Protocol):
    """A way to judge a model. A frozen dataclass: its fields are its part of the config.

    `every`, a field of all of them, is when it judges in a run; unset: `config.evaluate_every`.
    """

    every: Duration
    needs_train: ClassVar[bool] = False  # whether it looks at the training images
    needs_head: ClassVar[bool] = False  # whether it looks at logits of the data's classes

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        """What it gives, and which way each gets better: these may choose the best checkpoint."""
        ...

    def open(self, context: Context) -> Measure:
        """Gets ready to judge parameters of this model, any number of times.

        Raises ValueError where the model or the data do not serve it. The measure raises
        Interrupted where `context` says to stop.
        """
        ...
