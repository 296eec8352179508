"""Prepares a run: mesh, data, model, optimizer, state and store, checked before anything starts."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from vit_jax.checkpoints import lease as lease_lib
from vit_jax.checkpoints import run_folder
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, best_metric
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batches
from vit_jax.data.record import DataFacts
from vit_jax.parallel import agreement, compiler, multihost
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import (
    advice,
    branch,
    cached,
    compute,
    datasets,
    evaluation_data,
    facts,
    feeding,
    frozen,
    measures,
    resumption,
    run_config,
    setup,
    state,
    teacher_file,
    workdirs,
)
from vit_jax.training.design import Design, design
from vit_jax.training.frozen import Recorded
from vit_jax.training.measures import Evaluations
from vit_jax.workdir import place


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the loop needs. `state` is replaced at every step."""

    parts: "Parts"
    store: store_lib.Store
    lease: lease_lib.Lease | None  # of the workdir; only the primary process has it
    state: state.State
    frozen: Mapping[str, Any]  # parameters of the frozen models, by name
    batches: Batches = dataclasses.field(init=False)  # `read` sets it
    messages: tuple[str, ...]  # what the user should know when the run starts

    def read(self, stack: contextlib.ExitStack) -> None:
        """Begins to make the batches from the next step on. What must be closed is on `stack`."""
        start, params = int(self.state["step"]), self.state["params"]
        self.batches = stack.enter_context(batches_of(self.parts, start=start, params=params))

    @property
    def design(self) -> Design:
        return self.parts.design

    @property
    def evaluations(self) -> Evaluations:
        return self.parts.evaluations

    @property
    def config(self) -> Config:
        return self.design.config

    @property
    def lengths(self) -> setup.Lengths:
        return self.design.lengths


def prepare(config: Config, workdir: str | os.PathLike[str], stack: contextlib.ExitStack) -> Run:
    """Everything that a run needs, new or resumed. What must be closed is put on `stack`.

    Raises ValueError, with nothing left behind, if the config cannot be run or another process
    trains in `workdir`.
    """
    place.folder(workdir)  # first: a bucket that cannot be reached gives this error, no other
    agreement.compare(facts.of_start(config, workdir))
    lease = workdirs.hold(workdir, stack)
    meeting = stack.enter_context(agreement.Meeting())
    steps, replaced = workdirs.saved(workdir, config)
    resumed = workdir if steps else None
    parts = opened(config, workdir, resumed)
    plan, data, digests = parts.design, parts.data, parts.digests
    meeting.end(facts.of_plan(data.record.splits, plan.start.params, workdir, frozen=digests))
    # Before anything is written: there may be no intact checkpoint, or the other run may not fit.
    origin = _origin(config, resumed, parts)
    multihost.primary_first("run written", lambda: _write(config, workdir, origin, parts))
    first = origin.restored or _created(plan)
    placed = frozen.place(parts.frozen, plan.frozen)
    agreement.compare({})  # devices do not wait for a process that is still compiling
    best = best_metric(config)
    store = stack.enter_context(store_lib.Store(workdir, config.checkpoint, metric=best))
    return Run(
        parts=parts,
        store=store,
        lease=lease,
        state=first,
        frozen=placed,
        messages=messages(parts, step=origin.step, notes=(replaced, *origin.notes)),
    )


def messages(parts: "Parts", *, step: int, notes: tuple[str, ...]) -> tuple[str, ...]:
    """What the user should know when a run starts at a step."""
    plan, data = parts.design, parts.data
    return setup.messages(
        plan.config,
        plan.options,
        parameters=state.count(plan.shapes),
        mesh=plan.mesh,
        lengths=plan.lengths,
        images=len(data.train),
        step=step,
        notes=(*notes, *data.notes, *_notes(parts)),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """A run that is checked, before anything is written or placed on devices."""

    design: Design
    data: datasets.Data
    frozen: Mapping[str, frozen.Loaded]
    tables: Mapping[str, teacher_file.Table]  # by the names of their arrays in a batch
    feed: feeding.Feed
    bad: BadImages  # of the held-out images
    evaluations: Evaluations

    @property
    def digests(self) -> dict[str, str]:
        """The digests of what `recorded` returns."""
        return {name: one.digest for name, one in self.recorded.items()}

    @property
    def recorded(self) -> dict[str, Recorded]:
        """The frozen models, and the files of tables, by the fields that name them."""
        return dict(self.frozen) | teacher_file.recorded(self.tables, self.design.objective)


def opened(
    config: Config, workdir: str | os.PathLike[str], resumed: str | os.PathLike[str] | None
) -> Parts:
    """Opens the data and designs the run; `resumed` is the workdir of a run that is resumed.

    Raises ValueError if the config cannot be run.
    """
    if resumed is not None:
        config = run_config.with_own_start(resumed, config)
    mesh = _mesh(config)
    data = datasets.open_data(config, workdir, resumed=resumed is not None)
    held_out, _ = evaluation_data.relabelled(
        data.held_out, class_names=data.class_names, objective=config.objective
    )
    start = _start(config, resumed, data.facts)
    models = frozen.read(config.objective, data.facts)
    tables = teacher_file.tables(config.objective, data.facts, data.record.splits["train"])
    rows = {name: table.row for name, table in tables.items()}
    plan = design(config, data.facts, mesh, start=start, frozen=models, tables=rows)
    feed = feeding.feed(plan, data.train)
    bad = BadImages(size=len(held_out), max_bad=config.data.max_bad)
    evaluations = measures.of_run(plan, train=data.train, held_out=held_out, bad=bad)
    return Parts(
        design=plan,
        data=data,
        frozen=models,
        tables=tables,
        feed=feed,
        bad=bad,
        evaluations=evaluations,
    )


def _notes(parts: Parts) -> tuple[str, ...]:
    plan, size = parts.design, parts.design.options.image_size
    of_frozen = frozen.notes(plan.frozen, image_size=size)
    of_files = teacher_file.notes(parts.tables)
    compiled = compiler.shown(plan.compiler_options)
    on_tpus = plan.mesh.devices.flat[0].platform == "tpu"
    return (
        *of_frozen,
        *of_files,
        *_about_micro_batches(plan),
        _about_trained(plan),
        cached.note(plan, images=len(parts.data.train)) if plan.config.tune.caches else "",
        advice.thin_parts(plan.shapes, plan.mesh) if on_tpus else "",
        compute.note(plan.options) if on_tpus else "",
        plan.stages.note,
        parts.feed.epochs,
        compiled,
    )


def _about_micro_batches(plan: Design) -> Iterator[str]:
    """Messages if the results depend on the number of micro-batches."""
    if (parts := plan.config.optimizer.accumulate) == 1:
        return
    size = plan.config.batch_size // parts
    if state.statistics(plan.options):
        yield f"note: batch norm normalises each micro-batch of {size} images by its own statistics"
    kinds = ("dropout", "attention_dropout", "drop_path")
    if drawn := [name for name in kinds if getattr(plan.options, name, 0)]:
        yield (
            f"note: {' and '.join(drawn)} draw anew for each micro-batch of {size} images: another"
            " optimizer.accumulate gives other draws"
        )


def _about_trained(plan: Design) -> str:
    """A message if the config says that only a part of the parameters trains."""
    if plan.config.tune.whole and not plan.config.optimizer.frozen:
        return ""
    trained = state.count(plan.trained.arrays(plan.trained.part_of(plan.shapes)))
    total = state.count(plan.shapes) - state.count(state.statistics(plan.options))
    return f"note: {trained:,} of {total:,} parameters train"


def _mesh(config: Config) -> Mesh:
    """The mesh. Its check comes before the data are opened, which may take a while."""
    mesh, accumulate = mesh_lib.make_mesh(config.mesh), config.optimizer.accumulate
    mesh_lib.check_batch(mesh, config.batch_size, accumulate=accumulate, name="config.batch_size")
    if config.compiler_options:
        compiler.check_known(compiler.options(mesh, config.compiler_options))
    return mesh


def _start(config: Config, resumed: str | os.PathLike[str] | None, data: DataFacts) -> setup.Start:
    """The model of the run in the workdir `resumed`, or the model of a new run."""
    if resumed is not None:
        return setup.resumed_start(config, run_folder.read_card(resumed))
    return setup.fresh_start(config, data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Origin:
    """Where the first state comes from. Nothing is written yet."""

    step: int = 0
    restored: state.State | None = None  # None: a new state, with the parameters of `init_from`
    resumed: resumption.Resumption | None = None  # of a run that is resumed
    notes: tuple[str, ...]


def _origin(config: Config, resumed: str | os.PathLike[str] | None, parts: Parts) -> _Origin:
    """The checkpoint in the workdir `resumed`, the whole state of another run, or a new state."""
    plan, data = parts.design, parts.data
    if resumed is not None:
        frozen.check_same(resumed, parts.recorded)
        found = resumption.resume(resumed, config, plan.abstract, dataset_size=len(data.train))
        notes = tuple(
            f"note: {note}" for note in (*_about_start(config, plan.config), *found.notes)
        )
        return _Origin(step=found.step, restored=found.state, resumed=found, notes=notes)
    if config.init_state == "all":
        first, notes = branch.first_state(
            config, plan.options, abstract=plan.abstract, class_names=data.class_names
        )
        return _Origin(restored=first, notes=notes)
    return _Origin(notes=(plan.start.report,))


def _about_start(config: Config, own: Config) -> tuple[str, ...]:
    """A message if a resumed run, with the config `own`, started from something else."""
    said, began = ((c.init_from, c.init_state) for c in (config, own))
    if not config.init_from or said == began:
        return ()
    start = f"{own.init_from} ({own.init_state})" if own.init_from else "random values"
    return (
        f"config.init_from {config.init_from} ({config.init_state}) is not used: this run exists,"
        f" and it started from {start}; for another start use another --workdir",
    )


def _write(config: Config, workdir: str | os.PathLike[str], origin: _Origin, parts: Parts) -> None:
    """Writes what the run is. Raises ValueError if the workdir cannot be written to."""
    plan, data = parts.design, parts.data
    if origin.resumed:
        origin.resumed.write()
    else:
        card = setup.make_card(plan.config, plan.start, data.class_names)
        run_config.write_run(workdir, config, card)
        frozen.write(workdir, parts.recorded)
    data.write(workdir, step=origin.step)
    if origin.resumed:  # last: the data may have renamed the classes in model.json
        _write_metric(config, workdir)


def _write_metric(config: Config, workdir: str | os.PathLike[str]) -> None:
    """Makes model.json name the metric that chooses the best checkpoint from now on."""
    card, best = run_folder.read_card(workdir), best_metric(config)
    if best and best != (card.metric, card.better):
        metric, better = best
        run_folder.write_card(workdir, dataclasses.replace(card, metric=metric, better=better))


def _created(plan: Design) -> state.State:
    return state.create(
        plan.options,
        plan.optimizer,
        abstract=plan.abstract,
        seed=plan.config.seed,
        params=plan.start.params,
    )


def batches_of(parts: Parts, *, start: int, params: Any) -> Batches:
    """This process's rows of the batches from step `start` on.

    Features that are computed once are computed now, in the model with these parameters.
    """
    plan, train = parts.design, parts.data.train
    most = plan.config.data.max_bad
    bad = BadImages(size=len(train), max_bad=most, reported=parts.bad.reported)
    caches = plan.config.tune.caches
    features = cached.features(plan, params, train, bad=bad) if caches else None
    return parts.feed.batches(
        start=start,
        stop=plan.lengths.total,
        bad=bad,
        features=features,
        tables={name: table.rows for name, table in parts.tables.items()},
        interrupted=multihost.give_up_reading,
    )
