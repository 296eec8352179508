"""What an evaluator is, and what it is given."""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from vit_jax.data import pipeline
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batches
from vit_jax.data.preprocess import EvalTransform
from vit_jax.data.record import Source
from vit_jax.duration import Duration
from vit_jax.errors import Interrupted
from vit_jax.evaluators.answers import Recorder
from vit_jax.models.zoo import Options
from vit_jax.objectives import Direction, Objective
from vit_jax.parallel.mesh import local_rows, to_global

# (parameters, frozen) -> metrics by name. The parameters are those of the model, a nested dict
# placed on the mesh; `frozen` holds the parameters of each frozen model by its name.
Measure = Callable[[Any, Mapping[str, Any]], dict[str, float]]
Name = TypeVar("Name", bound=Hashable)  # of a sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """A model without its parameters, the data for its evaluation, and the devices."""

    graphdef: nnx.GraphDef
    options: Options
    objective: Objective
    mean: tuple[float, ...]  # of the pixels in [0, 1], one for each channel
    std: tuple[float, ...]
    mesh: Mesh
    held_out: Source  # labelled with the classes of the model
    train: Source | None  # None where only held-out images were given
    own: Source | None = None  # `held_out` with the labels of its dataset, where these differ
    transform: EvalTransform
    batch_size: int  # global; a multiple of the parts into which the mesh splits a batch
    bad: BadImages  # counts the broken held-out images
    # Makes callable models of the parameters of the frozen models.
    bind: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    threads: int = 8  # decoding threads of this process
    prefetch: int = 2  # batches prepared ahead
    recorder: Recorder | None = None  # keeps what the evaluator `held_out` predicts, where given
    # Called after each batch with the number of batches so far: whether to stop the evaluation.
    stop: Callable[[int], bool] = lambda count: False
    # Called while the next images are not ready, with the seconds of this wait: whether to stop it.
    interrupted: Callable[[float], bool] = lambda waited: False

    def without_head(self) -> "Context":
        """The context of an evaluator that does not read the head: labels are the dataset's."""
        return dataclasses.replace(self, held_out=self.own or self.held_out)

    def batches(
        self,
        source: Source,
        *,
        bad: BadImages | None = None,
        labelled: bool | None = None,
        versions: Sequence[pipeline.Version] = (),
    ) -> Batches:
        """This process's rows of all images of a split, prepared by `transform`.

        With `labelled`, images without a label are left out; unset: if the objective needs labels.
        With `versions`, each batch comes once for each version of its images.
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
            versions=versions,
            interrupted=self.interrupted,
        )

    @contextlib.contextmanager
    def on_devices(
        self,
        source: Source,
        *,
        inputs: Iterable[str],
        bad: BadImages | None = None,
        labelled: bool | None = None,
        versions: Sequence[pipeline.Version] = (),
    ) -> Iterator[Iterator[dict[str, jax.Array]]]:
        """The arrays `inputs` of every batch of `batches`, as global arrays on the mesh.

        The iterator raises Interrupted after a batch if `stop` returns True.
        """
        with self.batches(source, bad=bad, labelled=labelled, versions=versions) as batches:
            yield self._placed(batches, tuple(inputs))

    def _placed(self, batches: Batches, inputs: tuple[str, ...]) -> Iterator[dict[str, jax.Array]]:
        for number, batch in enumerate(batches, start=1):
            arrays = {name: batch[name] for name in inputs}
            yield to_global(arrays, self.mesh, batch_size=self.batch_size)
            if self.stop(number):
                raise Interrupted


def add_up(sums: Iterable[Mapping[Name, jax.Array]]) -> dict[Name, Any]:
    """The totals, by name, of the sums of each batch: float64, of the same shape, mostly ().

    Each batch is read after the next one was dispatched, so that the device is never idle.
    """
    totals: dict[Name, Any] = collections.defaultdict(float)
    pending: Mapping[Name, jax.Array] = {}
    for of_batch in sums:
        _add(totals, pending)
        pending = of_batch
    _add(totals, pending)
    return dict(totals)


def _add(totals: dict[Name, Any], sums: Mapping[Name, jax.Array]) -> None:
    # On the host in double precision: float32 counts stop being exact above 16 million.
    for name, value in sums.items():
        totals[name] += np.asarray(value).astype(np.float64)


class Evaluator(Protocol):
    """A way to measure a model. A frozen dataclass: its fields are its part of the config.

    Every evaluator has the field `every`: its period in a run; unset: `config.evaluate_every`.
    """

    every: Duration
    needs_train: ClassVar[bool] = False  # whether it reads the training images
    needs_head: ClassVar[bool] = False  # whether it reads logits of the data's classes

    def metrics(self, objective: Objective) -> Mapping[str, Direction]:
        """The names of its metrics, and whether the largest or the smallest value is the best.

        Each of them may choose the best checkpoint.
        """
        ...

    def open(self, context: Context) -> Measure:
        """Prepares to measure parameters of this model, any number of times.

        Raises ValueError if the evaluator cannot use the model or the data. The measure raises
        Interrupted if `context.stop` or `context.interrupted` returns True.
        """
        ...
