"""The evaluators of a config, ready to measure a state; and the context that they get."""

from collections.abc import Collection, Mapping
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from vit_jax.config import Config
from vit_jax.data import preprocess
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.evaluators import HELD_OUT, Context, Evaluator, Measure, held_out
from vit_jax.evaluators.answers import Recorder
from vit_jax.models import zoo
from vit_jax.parallel import multihost
from vit_jax.training import memory, state
from vit_jax.training.design import Design, eval_batch_size
from vit_jax.training.step import Bind


class Evaluations:
    """Measures a state, and its average if it has one, by each evaluator of a config."""

    def __init__(
        self, config: Config, evaluators: Mapping[str, Evaluator], context: Context
    ) -> None:
        """Raises ValueError if an evaluator cannot use the model or the data."""
        self._config = config
        models = config.objective.frozen_models()
        self._frozen = {name for name, model in models.items() if model.evaluated}
        self._measures: dict[str, Measure] = {
            name: _opened(name, evaluator, context) for name, evaluator in evaluators.items()
        }

    def __call__(
        self,
        state: state.State,
        frozen: Mapping[str, Any] | None = None,
        *,
        names: Collection[str] | None = None,
    ) -> dict[str, float]:
        """The metrics of all evaluators, or of those in `names`, as `NAME/METRIC`.

        Metrics of the evaluator `held_out` have no prefix, and metrics of the average begin with
        `ema_`. `frozen` holds the parameters of the frozen models. Raises Interrupted if the
        process was told to stop.
        """
        needed = {name: tree for name, tree in (frozen or {}).items() if name in self._frozen}
        found: dict[str, float] = {}
        with memory.explained(self._config, evaluation=True):
            for name, measure in self._measures.items():
                if names is not None and name not in names:
                    continue
                prefix = "" if name == HELD_OUT else f"{name}/"
                of_both = _with_average(measure, state, needed)
                found |= {f"{prefix}{metric}": value for metric, value in of_both.items()}
        return found


def _opened(name: str, evaluator: Evaluator, context: Context) -> Measure:
    """The measure of an evaluator. Raises ValueError that names it if it cannot be opened."""
    try:
        return evaluator.open(context if evaluator.needs_head else context.without_head())
    except ValueError as error:
        if not str(error).startswith(("config.", name)):
            error.args = (f"evaluator {name}: {error}",)  # the same object keeps its traceback
        raise


def _with_average(
    measure: Measure, state: state.State, frozen: Mapping[str, Any]
) -> dict[str, float]:
    metrics = measure(state["params"], frozen)
    if "ema" in state:
        average = measure(state["ema"], frozen)
        for name in held_out.COUNTS:
            average.pop(name, None)
        metrics |= {f"ema_{name}": value for name, value in average.items()}
    return metrics


def of_run(plan: Design, *, train: Source, held_out: Source, bad: BadImages) -> Evaluations:
    """The evaluations of a run as its config says; `held_out` has the labels of the model."""
    found = context_of(plan, train=train, held_out=held_out, bad=bad)
    return Evaluations(plan.config, plan.config.evaluators, found)


def context_of(plan: Design, *, train: Source | None, held_out: Source, bad: BadImages) -> Context:
    """The context of evaluators for the model of a run."""
    return context(
        plan.config,
        plan.graphdef,
        plan.options,
        mesh=plan.mesh,
        train=train,
        held_out=held_out,
        bad=bad,
        bind=plan.bind,
    )


def context(
    config: Config,
    graphdef: nnx.GraphDef,
    options: zoo.Options,
    *,
    mesh: Mesh,
    train: Source | None,
    held_out: Source,
    own: Source | None = None,
    transform: preprocess.EvalTransform | None = None,
    bad: BadImages | None = None,
    bind: Bind = dict,
    recorder: Recorder | None = None,
) -> Context:
    """The context of evaluators for a model. `transform`: unset, as the config says."""
    data = config.data
    return Context(
        graphdef=graphdef,
        options=options,
        objective=config.objective,
        mean=data.mean,
        std=data.std,
        mesh=mesh,
        train=train,
        held_out=held_out,
        own=own,
        transform=transform
        or preprocess.eval_transform(data, size=options.image_size, channels=options.channels),
        batch_size=eval_batch_size(config, mesh),
        bad=bad or BadImages(size=len(held_out), max_bad=data.max_bad),
        threads=data.threads,
        prefetch=data.prefetch,
        stop=multihost.told_to_stop,
        interrupted=multihost.give_up_reading,
        bind=bind,
        recorder=recorder,
    )
