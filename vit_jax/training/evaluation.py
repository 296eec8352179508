"""Evaluations: of a state while it trains, of a checkpoint of a run, of a loaded model."""

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from vit_jax.checkpoints import classes, fallback, run_folder
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, best_metric
from vit_jax.data import opening, preprocess
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.data.relabelled import Relabelled
from vit_jax.evaluators import HELD_OUT, Context, Evaluator, HeldOut, Measure, held_out
from vit_jax.images import transform_of
from vit_jax.models import zoo
from vit_jax.objectives import Objective
from vit_jax.objectives.classification import Classification
from vit_jax.parallel import agreement, multihost, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import datasets, facts, memory, setup, state
from vit_jax.training.design import Design, eval_batch_size
from vit_jax.training.step import Bind

MAX_BAD = 0.001  # share of broken images above which nothing is measured of files


class Evaluations:
    """Measures a state by each evaluator of a config, its average too where there is one."""

    def __init__(
        self, config: Config, evaluators: Mapping[str, Evaluator], context: Context
    ) -> None:
        """Raises ValueError where the model or the data do not serve an evaluator."""
        self._config = config
        self._measures: dict[str, Measure] = {
            name: evaluator.open(context) for name, evaluator in evaluators.items()
        }

    def __call__(
        self,
        state: state.State,
        frozen: Mapping[str, Any] | None = None,
        *,
        names: Collection[str] | None = None,
    ) -> dict[str, float]:
        """What each, or each of `names`, gives: `NAME/METRIC`, of the held-out measure `METRIC`.

        Metrics of the average begin with `ema_`. Raises Interrupted where the process was told to
        stop.
        """
        found: dict[str, float] = {}
        with memory.explained(self._config, evaluation=True):
            for name, measure in self._measures.items():
                if names is not None and name not in names:
                    continue
                prefix = "" if name == HELD_OUT else f"{name}/"
                of_both = _with_average(measure, state, frozen or {})
                found |= {f"{prefix}{metric}": value for metric, value in of_both.items()}
        return found


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
    """The evaluations of a run as its config says; `held_out` comes from `relabelled`."""
    context = _context(
        plan.config,
        plan.objective,
        plan.graphdef,
        plan.options,
        mesh=plan.mesh,
        train=train,
        held_out=held_out,
        bad=bad,
        bind=plan.bind,
    )
    return Evaluations(plan.config, plan.config.evaluators, context)


def relabelled(
    source: Source, *, class_names: tuple[str, ...], num_classes: int = 0, objective: Objective
) -> tuple[Source, str]:
    """The images of `source` with the labels of a model, and what was assumed, in words.

    Labels are matched by name. Raises ValueError where the classes are others.
    """
    if "label" not in objective.inputs:
        return source, ""
    num_classes = num_classes or len(class_names)
    match = classes.match(
        class_names,
        source.class_names,
        their_count=num_classes,
        our_count=len(source.class_names),
    )
    if not match.kept:
        raise ValueError(
            f"{source.name} has the classes {classes.said(source.class_names)}, the model"
            f" {classes.said(class_names, num_classes)}: train and evaluate on the same classes"
            f" ({match.note})"
        )
    if match.kind == "reordered":
        return Relabelled(source, match.rows), f"labels are matched by name: {match.note}"
    return source, match.note


def evaluate(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    which: store_lib.Which,
    only: Sequence[str] | None = None,
) -> tuple[int, dict[str, float]]:
    """Measures a checkpoint of the run in `workdir`: its step, and what `Evaluations` says.

    By all evaluators of the config, or those named `only`. On the run's mesh, or, where that does
    not fit the devices at hand, with all of them as `data`.
    """
    agreement.compare(facts.of_start(config, workdir))
    card = run_folder.read_card(workdir)
    evaluators = _chosen(config, only)
    _check_head(config, evaluators, card.options)
    mesh = _mesh_at_hand(config)
    with agreement.Meeting() as meeting:
        held_out, train, note = _opened(config, evaluators, card.class_names, card.options)
        identity = held_out.identity()
        meeting.end(facts.of_data({"eval": identity}))
    for said in (note, datasets.evaluated_otherwise(workdir, held_out.name, identity)):
        _warn(workdir, said)
    graphdef, shapes = state.abstract_params(card.options)
    names = ("params", "ema") if card.average else ("params",)
    placed = rules.placed_shapes(shapes, mesh)
    best = best_metric(config)
    with store_lib.Store(workdir, config.checkpoint, metric=best, read_only=True) as store:
        found = fallback.restore(store, dict.fromkeys(names, placed), which, substitute=True)
    for said in found.notes:
        _warn(workdir, said)
    with jax.set_mesh(mesh):
        config = setup.with_value_range(config, card.preprocessing)
        context = _context(
            config,
            config.objective,
            graphdef,
            card.options,
            mesh=mesh,
            train=train,
            held_out=held_out,
        )
        return found.step, Evaluations(config, evaluators, context)(found.state)


def evaluate_file(
    config: Config, model: zoo.Model, *, name: str, only: Sequence[str] | None = None
) -> dict[str, float]:
    """Measures a loaded model by the evaluators, or those named `only`, and data of a config.

    With the model's own preprocessing; `name` is what messages call it. Raises ValueError where the
    model or the data do not serve an evaluator.
    """
    evaluators = _chosen(config, only)
    _check_head(config, evaluators, model.options)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    mesh = _mesh_at_hand(config)
    held_out, train, note = _opened(config, evaluators, model.class_names, model.options)
    _warn(name, note)
    graphdef, params = nnx.split(model)
    with jax.set_mesh(mesh):
        context = _context(
            setup.with_value_range(config, wanted),
            config.objective,
            graphdef,
            model.options,
            mesh=mesh,
            train=train,
            held_out=held_out,
        )
        context = dataclasses.replace(
            context,
            mean=wanted.mean,
            std=wanted.std,
            transform=transform_of(model, orient=config.data.orientation),
        )
        nested = nnx.to_pure_dict(params)
        placed = jax.device_put(nested, rules.tree_shardings(nested, mesh))
        return Evaluations(config, evaluators, context)({"params": placed})


def _mesh_at_hand(config: Config) -> Mesh:
    """That of the config, or, where it does not fit the devices, all of them as `data`."""
    try:
        return mesh_lib.make_mesh(config.mesh)
    except ValueError:
        return mesh_lib.make_mesh(mesh_lib.MeshConfig())


def _chosen(config: Config, only: Sequence[str] | None) -> Mapping[str, Evaluator]:
    """The evaluators of a config, or some of them. Raises ValueError for one that is not there."""
    for name in only or ():
        if name not in config.evaluators:
            raise ValueError(
                f"no evaluator is called {name!r}: the config has {', '.join(config.evaluators)}"
            )
    return {name: config.evaluators[name] for name in only or config.evaluators}


def _check_head(config: Config, evaluators: Mapping[str, Evaluator], options: zoo.Options) -> None:
    labels = "label" in config.objective.inputs
    if labels and any(evaluator.needs_head for evaluator in evaluators.values()):
        zoo.check_head(options)


def _opened(
    config: Config,
    evaluators: Mapping[str, Evaluator],
    class_names: tuple[str, ...],
    options: zoo.Options,
) -> tuple[Source, Source | None, str]:
    """Held-out images with the model's labels, training images where needed, what was assumed."""
    labelled = "label" in config.objective.inputs
    held_out, note = opening.open_eval(config.data, labelled=labelled), ""
    if options.num_classes:
        held_out, note = relabelled(
            held_out,
            class_names=class_names,
            num_classes=options.num_classes,
            objective=config.objective,
        )
    train = None
    if any(evaluator.needs_train for evaluator in evaluators.values()):
        train = opening.open_train(config.data)
    return held_out, train, note


def evaluate_model(
    model: zoo.Model, source: Source, *, batch_size: int = 64, orient: bool = False
) -> dict[str, float]:
    """Measures a loaded model on labelled images, with its own preprocessing, on all devices.

    The images are split over the devices, the model is on each. With `orient` they are turned as
    their EXIF orientation says. Returns what `held_out.evaluate` does. Raises ValueError without a
    head.
    """
    zoo.check_head(model.options)
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig())
    graphdef, params = nnx.split(model)
    context = Context(
        graphdef=graphdef,
        options=model.options,
        objective=Classification(),
        mean=wanted.mean,
        std=wanted.std,
        mesh=mesh,
        held_out=source,
        train=None,
        transform=transform_of(model, orient=orient),
        batch_size=-(-batch_size // mesh.size) * mesh.size,
        bad=BadImages(size=len(source), max_bad=MAX_BAD, remedy="repair them, or leave them out"),
    )
    with jax.set_mesh(mesh):
        everywhere = jax.NamedSharding(mesh, jax.P())
        placed = jax.device_put(nnx.to_pure_dict(params), everywhere)
        return HeldOut().open(context)(placed, {})


def _context(
    config: Config,
    objective: Objective,
    graphdef: nnx.GraphDef,
    options: zoo.Options,
    *,
    mesh: Mesh,
    train: Source | None,
    held_out: Source,
    bad: BadImages | None = None,
    bind: Bind = dict,
) -> Context:
    data = config.data
    return Context(
        graphdef=graphdef,
        options=options,
        objective=objective,
        mean=data.mean,
        std=data.std,
        mesh=mesh,
        train=train,
        held_out=held_out,
        transform=preprocess.eval_transform(
            data, size=options.image_size, channels=options.channels
        ),
        batch_size=eval_batch_size(config, mesh),
        bad=bad or BadImages(size=len(held_out), max_bad=data.max_bad),
        threads=data.threads,
        prefetch=data.prefetch,
        stop=multihost.told_to_stop,
        interrupted=multihost.give_up_reading,
        bind=bind,
    )


def _warn(workdir: str | os.PathLike[str], note: str) -> None:
    if note and multihost.is_primary():
        logging.getLogger(__name__).warning("%s: %s", os.fspath(workdir), note)
