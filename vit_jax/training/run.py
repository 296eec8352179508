"""A run put together: mesh, data, model, optimizer, state and store, checked before it starts."""

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from vit_jax.checkpoints import lease as lease_lib
from vit_jax.checkpoints import run_folder
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, best_metric
from vit_jax.data import pipeline, preprocess
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import DataFacts, Source
from vit_jax.parallel import agreement, multihost
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import (
    branch,
    datasets,
    evaluation,
    evaluation_data,
    facts,
    frozen,
    resumption,
    run_config,
    setup,
    state,
    workdirs,
)
from vit_jax.training.design import Design, design
from vit_jax.training.evaluation import Evaluations
from vit_jax.workdir import place


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the loop needs. `state` is replaced at every step."""

    design: Design
    store: store_lib.Store
    lease: lease_lib.Lease | None  # of the workdir; the primary process holds it
    state: state.State
    frozen: Mapping[str, Any]  # parameters of the models that do not train
    batches: pipeline.Batches
    evaluations: Evaluations
    messages: tuple[str, ...]  # what the user should know about the start

    @property
    def config(self) -> Config:
        return self.design.config

    @property
    def lengths(self) -> setup.Lengths:
        return self.design.lengths


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
    held_out, _ = evaluation_data.relabelled(
        data.held_out, class_names=data.class_names, objective=config.objective
    )
    begin = _begin(config, workdir if resumed else None, data.facts)
    frozen_models = frozen.read(config.objective, data.facts)
    plan = design(config, data.facts, mesh, start=begin, frozen=frozen_models)
    transform = preprocess.train_transform(
        plan.config.data, size=plan.options.image_size, channels=plan.options.channels
    )
    bad = BadImages(size=len(held_out), max_bad=config.data.max_bad)
    # Before anything is read: an evaluator may not serve this model.
    evaluations = evaluation.of_run(plan, train=data.train, held_out=held_out, bad=bad)
    digests = {name: model.digest for name, model in frozen_models.items()}
    meeting.end(facts.of_plan(data.record.splits, begin.params, workdir, frozen=digests))
    # Before anything is written: no checkpoint may be sound, or the other run may not fit.
    origin = _origin(config, workdir if resumed else None, plan, data, frozen_models)

    def write() -> None:
        if origin.resumed:
            origin.resumed.write()
        else:
            card = setup.make_card(plan.config, begin, data.class_names)
            run_config.write_run(workdir, config, card)
            frozen.write(workdir, frozen_models)
        data.write(workdir, step=origin.step)

    multihost.primary_first("run written", write)
    first = origin.restored or _created(plan)
    placed = frozen.place(frozen_models, plan.frozen)
    agreement.compare({})  # devices do not wait for a process that still compiles
    best = best_metric(config)
    store = stack.enter_context(store_lib.Store(workdir, config.checkpoint, metric=best))
    told = (replaced, *origin.told, *data.notes)
    batches = _batches(plan, data.train, transform, bad, start=origin.step)
    return Run(
        design=plan,
        store=store,
        lease=lease,
        state=first,
        frozen=placed,
        batches=stack.enter_context(batches),
        evaluations=evaluations,
        messages=setup.messages(
            plan.config,
            plan.options,
            parameters=state.count(plan.shapes),
            mesh=mesh,
            images=len(data.train),
            step=origin.step,
            told=told,
        ),
    )


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
    plan: Design,
    data: datasets.Data,
    frozen_models: Mapping[str, frozen.Loaded],
) -> _Origin:
    """The checkpoint of the workdir `resumed`, all of another run, or a state to be created."""
    if resumed is not None:
        frozen.check_same(resumed, frozen_models)
        found = resumption.resume(resumed, config, plan.abstract, dataset_size=len(data.train))
        told = tuple(f"note: {note}" for note in found.notes)
        return _Origin(step=found.step, restored=found.state, resumed=found, told=told)
    if config.init_state == "all":
        first, taken = branch.first_state(
            config, plan.options, abstract=plan.abstract, class_names=data.class_names
        )
        return _Origin(restored=first, told=taken)
    return _Origin(told=(plan.start.report,))


def _created(plan: Design) -> state.State:
    return state.create(
        plan.options,
        plan.optimizer,
        abstract=plan.abstract,
        seed=plan.config.seed,
        params=plan.start.params,
    )


def _mesh(config: Config) -> Mesh:
    """Before the data are opened: that may take a while."""
    mesh, accumulate = mesh_lib.make_mesh(config.mesh), config.optimizer.accumulate
    mesh_lib.check_batch(mesh, config.batch_size, accumulate=accumulate, name="config.batch_size")
    return mesh


def _begin(config: Config, resumed: str | os.PathLike[str] | None, data: DataFacts) -> setup.Start:
    """The model of the run in the workdir `resumed`, or of a new run on such data."""
    if resumed is not None:
        return setup.resumed_start(config, run_folder.read_card(resumed))
    return setup.fresh_start(config, data)


def _batches(
    plan: Design,
    source: Source,
    transform: preprocess.TrainTransform,
    held_out: BadImages,
    *,
    start: int,
) -> pipeline.Batches:
    """This process's rows of the batches from step `start` on."""
    config, data = plan.config, plan.config.data
    return pipeline.train_batches(
        source,
        transform,
        seed=config.seed,
        batch_size=config.batch_size,
        rows=mesh_lib.local_rows(plan.mesh, config.batch_size),
        start_step=start,
        num_steps=plan.lengths.total,
        threads=data.threads,
        prefetch=data.prefetch,
        bad=BadImages(size=len(source), max_bad=data.max_bad, reported=held_out.reported),
        labelled="label" in plan.objective.inputs,
        interrupted=multihost.give_up_reading,
    )
