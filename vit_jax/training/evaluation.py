"""Evaluations: of a state in training, of a checkpoint of a run, of a loaded model."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from vit_jax.checkpoints import fallback, run_folder
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, DataConfig, best_metric
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.evaluators import HELD_OUT, Context, Evaluator, HeldOut
from vit_jax.evaluators.answers import Recorder
from vit_jax.images import transform_of
from vit_jax.models import attention_choice, zoo
from vit_jax.objectives import Direction, classification
from vit_jax.objectives.classification import Classification
from vit_jax.parallel import agreement, multihost, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.text import printable
from vit_jax.training import (
    datasets,
    evaluation_data,
    facts,
    frozen,
    measures,
    run_config,
    setup,
    state,
)
from vit_jax.training.step import Bind

MAX_BAD = 0.001  # an evaluation of image files fails above this share of broken images


def evaluate(
    config: Config,
    workdir: str | os.PathLike[str],
    *,
    which: store_lib.Which,
    only: Sequence[str] | None = None,
    recorder: Recorder | None = None,
) -> tuple[int, dict[str, float]]:
    """Measures a checkpoint of the run in `workdir`: its step, and the metrics of `Evaluations`.

    `only` names some of the config's evaluators. `recorder` keeps the answers for each held-out
    image. Uses the mesh of the run, or all devices as `data`
    if they do not fit that mesh. Raises ValueError if the run cannot be evaluated so.
    """
    agreement.compare(facts.of_start(config, workdir))
    card = run_folder.read_card(workdir)
    options = attention_choice.runnable(card.options, platform=jax.default_backend())
    evaluators = _chosen(config, only, recorder=recorder)
    _check_head(config, evaluators, options)
    mesh = _mesh_at_hand(config)
    with agreement.Meeting() as meeting:
        data = evaluation_data.open_data(config, evaluators, card.class_names, options)
        models = frozen.read(config.objective, data.facts, for_evaluation=True)
        frozen.check_same(workdir, models)
        identity = data.held_out.identity()
        digests = facts.of_frozen({name: model.digest for name, model in models.items()})
        meeting.end(facts.of_data({"eval": identity}) | digests)
    for note in (data.note, datasets.evaluated_otherwise(workdir, data.held_out.name, identity)):
        _warn(workdir, note)
    graphdef, shapes = state.abstract_params(options)
    names = ("params", "ema") if card.average else ("params",)
    placed = rules.placed_shapes(shapes, mesh)
    best = _best_metric(config, workdir, card)
    with store_lib.Store(workdir, config.checkpoint, metric=best, read_only=True) as store:
        found = fallback.restore(store, dict.fromkeys(names, placed), which, substitute=True)
    for note in found.notes:
        _warn(workdir, note)
    config = setup.with_value_range(config, card.preprocessing)
    designs = _frozen_designs(config, models, options, mesh)
    with jax.set_mesh(mesh):
        context = measures.context(
            config,
            graphdef,
            options,
            mesh=mesh,
            train=data.train,
            held_out=data.held_out,
            own=data.own,
            bind=frozen.binder(designs),
            recorder=recorder,
        )
        evaluations = measures.Evaluations(config, evaluators, context)
        return found.step, evaluations(found.state, frozen.place(models, designs))


def evaluate_file(
    config: Config,
    model: zoo.Model,
    *,
    name: str,
    only: Sequence[str] | None = None,
    recorder: Recorder | None = None,
) -> dict[str, float]:
    """Measures a loaded model by the evaluators of a config, or `only` some, on the config's data.

    Uses the model's own preprocessing; `name` is the model's name in messages. `recorder` keeps
    the answers for each held-out image. Raises ValueError if an evaluator cannot use the model or
    the data.
    """
    evaluators = _chosen(config, only, recorder=recorder)
    _check_head(config, evaluators, model.options)
    mesh = _mesh_at_hand(config)
    data = evaluation_data.open_data(config, evaluators, model.class_names, model.options)
    models = frozen.read(config.objective, data.facts, for_evaluation=True)
    _warn(name, data.note)
    config = _with_range_of(config, model)
    designs = _frozen_designs(config, models, model.options, mesh)
    with jax.set_mesh(mesh):
        context, params = _of_loaded(
            config,
            model,
            mesh=mesh,
            train=data.train,
            held_out=data.held_out,
            own=data.own,
            bind=frozen.binder(designs),
            recorder=recorder,
        )
        evaluations = measures.Evaluations(config, evaluators, context)
        return evaluations({"params": params}, frozen.place(models, designs))


def evaluate_model(
    model: zoo.Model,
    source: Source,
    *,
    also: Mapping[str, Evaluator] | None = None,
    batch_size: int | None = None,
    orient: bool = False,
    recorder: Recorder | None = None,
) -> dict[str, float]:
    """Measures a loaded classifier on labelled images, with its own preprocessing.

    The images are split over all devices, and each device has the whole model. Without
    `batch_size`, batches have at most 64 images and little padding. With `orient` the images are
    turned as their EXIF orientation says. The loss is that of the model's training, the softmax if
    that is not known. `recorder` keeps the answers for each image. Returns the metrics of
    `held_out`, and of the evaluators `also` as NAME/METRIC. Raises ValueError if the model has no
    head.
    """
    zoo.check_head(model.options)
    batch_size = batch_size or _of_equal_batches(len(source))
    config = Config(
        eval_batch_size=batch_size,
        data=DataConfig(orientation=orient),
        objective=Classification(cross_entropy=classification.trained_with(model)),
    )
    config = _with_range_of(config, model)
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig())
    bad = BadImages(size=len(source), max_bad=MAX_BAD, remedy="repair them, or leave them out")
    with jax.set_mesh(mesh):
        context, params = _of_loaded(
            config, model, mesh=mesh, train=None, held_out=source, bad=bad, recorder=recorder
        )
        evaluators = {HELD_OUT: HeldOut(), **(also or {})}
        return measures.Evaluations(config, evaluators, context)({"params": params})


def _of_equal_batches(images: int, *, most: int = 64) -> int:
    """The size of as few batches as possible of at most `most` images."""
    return max(1, -(-images // max(1, -(-images // most))))


def _best_metric(
    config: Config, workdir: str | os.PathLike[str], card: run_folder.Card
) -> tuple[str, Direction] | None:
    """The metric that chooses the best checkpoint: that of the config if it is changed here.

    Otherwise it is that of model.json, which follows a run that was resumed with another metric.
    """
    changed = config.checkpoint.metric != run_config.read_config(workdir).checkpoint.metric
    return best_metric(config) if changed or not card.metric else (card.metric, card.better)


def _mesh_at_hand(config: Config) -> Mesh:
    """The mesh of the config, or all devices as `data` if they do not fit that mesh."""
    try:
        return mesh_lib.make_mesh(config.mesh)
    except ValueError:
        return mesh_lib.make_mesh(mesh_lib.MeshConfig())


def _chosen(
    config: Config, only: Sequence[str] | None, *, recorder: Recorder | None
) -> Mapping[str, Evaluator]:
    """The evaluators of a config, or `only` some.

    Raises ValueError for an unknown name, and if none of them fills the `recorder`.
    """
    for name in only or ():
        if name not in config.evaluators:
            raise ValueError(
                f"no evaluator is called {name!r}: the config has {', '.join(config.evaluators)}"
            )
    chosen = {name: config.evaluators[name] for name in only or config.evaluators}
    if recorder and not any(isinstance(evaluator, HeldOut) for evaluator in chosen.values()):
        raise ValueError(
            f"predictions need the evaluator {HELD_OUT}, but only {', '.join(chosen)} runs"
        )
    return chosen


def _check_head(config: Config, evaluators: Mapping[str, Evaluator], options: zoo.Options) -> None:
    labels = "label" in config.objective.inputs
    if labels and any(evaluator.needs_head for evaluator in evaluators.values()):
        zoo.check_head(options)


def _frozen_designs(
    config: Config, models: Mapping[str, frozen.Loaded], options: zoo.Options, mesh: Mesh
) -> dict[str, frozen.Frozen]:
    """The frozen models beside a model of these options; `config` has its mean and std."""
    return frozen.designs(
        models,
        objective=config.objective,
        options=options,
        mesh=mesh,
        mean=config.data.mean,
        std=config.data.std,
    )


def _with_range_of(config: Config, model: zoo.Model) -> Config:
    """The config with the mean and std of a loaded model."""
    wanted = model.preprocessing
    assert wanted is not None, "the model was not loaded"
    data = dataclasses.replace(config.data, mean=wanted.mean, std=wanted.std)
    return dataclasses.replace(config, data=data)


def _of_loaded(
    config: Config,
    model: zoo.Model,
    *,
    mesh: Mesh,
    train: Source | None,
    held_out: Source,
    own: Source | None = None,
    bad: BadImages | None = None,
    bind: Bind = dict,
    recorder: Recorder | None = None,
) -> tuple[Context, Any]:
    """The context for a loaded model, with its own preprocessing, and its placed parameters."""
    graphdef, params = nnx.split(model)
    context = measures.context(
        config,
        graphdef,
        model.options,
        mesh=mesh,
        train=train,
        held_out=held_out,
        own=own,
        transform=transform_of(model, orient=config.data.orientation),
        bad=bad,
        bind=bind,
        recorder=recorder,
    )
    nested = nnx.to_pure_dict(params)
    return context, jax.device_put(nested, rules.tree_shardings(nested, mesh))


def _warn(name: str | os.PathLike[str], note: str) -> None:
    if note and multihost.is_primary():
        logging.getLogger(__name__).warning("%s", printable(f"{os.fspath(name)}: {note}"))
