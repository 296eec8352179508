"""A run put together: mesh, data, model, optimizer, state and store, checked before it starts."""

import contextlib
import dataclasses
import os
from typing import Any

import optax
from flax import nnx
from jax.sharding import Mesh

from vit_jax.checkpoints import lease as lease_lib
from vit_jax.checkpoints import run_folder, surgery
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config
from vit_jax.data import pipeline, preprocess
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.models.zoo import Options
from vit_jax.parallel import agreement, multihost
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import (
    branch,
    datasets,
    facts,
    optimizer,
    resumption,
    run_config,
    schedules,
    setup,
    state,
    step,
    workdirs,
)
from vit_jax.training.evaluator import Evaluator
from vit_jax.workdir import place


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the loop needs. `state` is replaced at every step."""

    config: Config
    mesh: Mesh
    lengths: setup.Lengths
    store: store_lib.Store
    lease: lease_lib.Lease | None  # of the workdir; the primary process holds it
    state: state.State
    step: Any  # (state, batch) -> (state, metrics), jitted
    batches: pipeline.Batches
    evaluator: Evaluator
    messages: tuple[str, ...]  # what the user should know about the start


def prepare(config: Config, workdir: str | os.PathLike[str], stack: contextlib.ExitStack) -> Run:
    """Everything a run needs, new or resumed; what must be closed is put on `stack`.

    Raises ValueError, with nothing left behind, where the config cannot be run or another process
    trains in `workdir`.
    """
    place.folder(workdir)  # a bucket that cannot be reached is told as that
    agreement.compare(facts.of_start(config, workdir))
    lease = workdirs.hold(workdir, stack)
    meeting = stack.enter_context(agreement.Meeting())
    resumed, replaced = workdirs.saved(workdir, config)
    mesh = _mesh(config)
    data = datasets.open_data(config, workdir, resumed=bool(resumed))
    source, names = data.train, data.class_names
    evaluator = Evaluator(config, mesh=mesh, source=data.held_out, class_names=names)
    lengths = setup.lengths(config, dataset_size=len(source))
    begin = _begin(config, workdir if resumed else None, names)
    options, given = begin.options, config
    config = setup.with_value_range(config, begin.preprocessing)
    parts = _parts(config, options, mesh=mesh, total_steps=lengths.total, dataset_size=len(source))
    transform = preprocess.train_transform(
        config.data, size=options.image_size, channels=options.channels
    )
    evaluator.bind(parts.graphdef, options, config.data)
    meeting.end(facts.of_plan(data.record.splits, begin.params, workdir))
    # Before anything is written: no checkpoint may be sound, or the other run may not fit.
    origin = _origin(given, workdir if resumed else None, begin, parts, data)

    def write() -> None:
        if origin.resumed:
            origin.resumed.write()
        else:
            run_config.write_run(workdir, given, setup.make_card(config, begin, names))
        data.write(workdir, step=origin.step)

    multihost.primary_first("run written", write)
    first = origin.restored or _created(config, parts, begin.params)
    agreement.compare({})  # devices do not wait for a process that still compiles
    store = stack.enter_context(store_lib.Store(workdir, config.checkpoint))
    told = (replaced, *origin.told, *data.notes)
    bad = BadImages(size=len(source), max_bad=config.data.max_bad, reported=evaluator.bad.reported)
    batches = _batches(config, source, transform, mesh, bad, start=origin.step, stop=lengths.total)
    return Run(
        config=config,
        mesh=mesh,
        lengths=lengths,
        store=store,
        lease=lease,
        state=first,
        step=_train_step(config, parts),
        batches=stack.enter_context(batches),
        evaluator=evaluator,
        messages=setup.messages(
            config, options, parts.shapes, mesh, len(source), origin.step, told
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """What a step is made of: the model, its optimizer, and the shapes of their state."""

    options: Options
    graphdef: nnx.GraphDef
    shapes: Any  # of the parameters
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    abstract: state.State


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where the first state comes from. Nothing is written yet."""

    step: int = 0
    restored: state.State | None = None  # None: created, with the parameters of `init_from` if any
    resumed: resumption.Resumption | None = None  # of a run that goes on
    told: tuple[str, ...]


def _origin(
    config: Config,
    resumed: str | os.PathLike[str] | None,
    begin: setup.Start,
    parts: _Parts,
    data: datasets.Data,
) -> _Origin:
    """The checkpoint of the workdir `resumed`, all of another run, or a state to be created."""
    if resumed is not None:
        found = resumption.resume(resumed, config, parts.abstract, dataset_size=len(data.train))
        told = tuple(f"note: {note}" for note in found.notes)
        return _Origin(step=found.step, restored=found.state, resumed=found, told=told)
    if config.init_state == "all":
        first, taken = branch.first_state(
            config, parts.options, abstract=parts.abstract, class_names=data.class_names
        )
        return _Origin(restored=first, told=taken)
    return _Origin(told=(begin.report,))


def _created(config: Config, parts: _Parts, params: surgery.Params | None) -> state.State:
    return state.create(
        parts.options, parts.optimizer, abstract=parts.abstract, seed=config.seed, params=params
    )


def _mesh(config: Config) -> Mesh:
    mesh, accumulate = mesh_lib.make_mesh(config.mesh), config.optimizer.accumulate
    mesh_lib.check_batch(mesh, config.batch_size, accumulate=accumulate, name="config.batch_size")
    return mesh


def _begin(
    config: Config, resumed: str | os.PathLike[str] | None, names: tuple[str, ...]
) -> setup.Start:
    """The model of the run in the workdir `resumed`, or of a new run with classes `names`."""
    if resumed is not None:
        return setup.resumed_start(config, run_folder.read_card(resumed))
    return setup.fresh_start(config, num_classes=len(names), class_names=names)


def _parts(
    config: Config, options: Options, *, mesh: Mesh, total_steps: int, dataset_size: int
) -> _Parts:
    schedule = schedules.make_schedule(
        config.schedule,
        peak=config.optimizer.learning_rate,
        total_steps=total_steps,
        batch_size=config.batch_size,
        dataset_size=dataset_size,
    )
    graphdef, shapes = state.abstract_params(options)
    rule = optimizer.make_optimizer(config.optimizer, schedule, shapes)
    return _Parts(
        options=options,
        graphdef=graphdef,
        shapes=shapes,
        schedule=schedule,
        optimizer=rule,
        abstract=state.abstract_state(options, rule, average=config.ema > 0, mesh=mesh),
    )


def _batches(
    config: Config,
    source: Source,
    transform: preprocess.TrainTransform,
    mesh: Mesh,
    bad: BadImages,
    *,
    start: int,
    stop: int,
) -> pipeline.Batches:
    """This process's rows of the batches of steps `start`, ..., `stop - 1`."""
    return pipeline.train_batches(
        source,
        transform,
        seed=config.seed,
        batch_size=config.batch_size,
        rows=mesh_lib.local_rows(mesh, config.batch_size),
        start_step=start,
        num_steps=stop,
        threads=config.data.threads,
        prefetch=config.data.prefetch,
        bad=bad,
        interrupted=multihost.give_up_reading,
    )


def _train_step(config: Config, parts: _Parts) -> Any:
    prepare_batch, loss = step.classification_step_parts(
        config, num_classes=parts.options.num_classes
    )
    return step.make_train_step(
        parts.graphdef,
        prepare=prepare_batch,
        loss=loss,
        optimizer=parts.optimizer,
        schedule=parts.schedule,
        abstract=parts.abstract,
        accumulate=config.optimizer.accumulate,
        ema=config.ema,
        ema_begins=config.init_state != "all",  # else it goes on
    )
