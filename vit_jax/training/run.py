"""A run put together: mesh, data, model, optimizer, state and store, checked before it starts."""

import contextlib
import dataclasses
import logging
import os
from typing import Any

import jax
import optax
from flax import nnx
from jax.sharding import Mesh

from vit_jax import stopping
from vit_jax.checkpoints import classes, fallback, run_folder
from vit_jax.checkpoints import lease as lease_lib
from vit_jax.checkpoints import store as store_lib
from vit_jax.config import Config, DataConfig, MeshConfig
from vit_jax.data import pipeline, preprocess, sources
from vit_jax.data.bad_images import BadImages
from vit_jax.data.record import Source
from vit_jax.data.relabelled import Relabelled
from vit_jax.models import zoo
from vit_jax.models.zoo import Options
from vit_jax.parallel import agreement, multihost, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import (
    branch,
    datasets,
    evaluation,
    facts,
    memory,
    optimizer,
    resumption,
    schedules,
    setup,
    state,
    step,
    workdirs,
)
from vit_jax.workdir import place

READ_LIMIT = 30.0  # seconds that a process of several, told to stop, still waits for images


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
    evaluator: "Evaluator"
    messages: tuple[str, ...]  # what the user should know about the start


class Evaluator:
    """Measures a state on the held-out split, its average too where there is one."""

    def __init__(
        self,
        config: Config,
        *,
        mesh: Mesh,
        source: Source,
        class_names: tuple[str, ...],
        num_classes: int = 0,
    ) -> None:
        """Of a model of these classes, of which the number is enough, on the images of `source`.

        Labels are matched by name; `note` says what was assumed. Raises ValueError where the
        classes are others.
        """
        self.config, self.mesh = config, mesh
        # Rounded up to what the mesh divides: the result does not depend on it.
        wanted, parts = config.eval_batch_size or config.batch_size, mesh_lib.batch_parts(mesh)
        self.batch_size = -(-wanted // parts) * parts
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
        self.source: Source = source
        if match.kind == "reordered":
            self.source = Relabelled(source, match.rows)
        by_name = "labels are matched by name: " if match.kind == "reordered" else ""
        self.note = by_name + match.note
        # Of all evaluations of a run: a broken image is reported once.
        self.bad = BadImages(size=len(self.source), max_bad=config.data.max_bad)
        self._step: evaluation.EvalStep | None = None

    def bind(self, graphdef: nnx.GraphDef, options: Options, data: DataConfig) -> "Evaluator":
        """Fixes the model and its value range; to be called before the first evaluation."""
        self._transform = preprocess.eval_transform(
            data, size=options.image_size, channels=options.channels
        )
        self._step = evaluation.make_eval_step(
            graphdef,
            num_classes=options.num_classes,
            loss=self.config.objective.loss,
            mean=data.mean,
            std=data.std,
        )
        return self

    def __call__(self, state: state.State) -> dict[str, float]:
        """top1, top5, loss, count; with `ema_` before the names for the average.

        Raises Interrupted where the process was told to stop.
        """
        with memory.explained(self.config, evaluation=True):
            return self._measure_all(state)

    def _measure_all(self, state: state.State) -> dict[str, float]:
        metrics = self._measure(state["params"])
        if "ema" in state:
            average = self._measure(state["ema"])
            for name in evaluation.COUNTS:
                average.pop(name, None)
            metrics |= {f"ema_{name}": value for name, value in average.items()}
        return metrics

    def _measure(self, params: Any) -> dict[str, float]:
        assert self._step is not None, "bind comes first"
        data = self.config.data
        with pipeline.eval_batches(
            self.source,
            self._transform,
            batch_size=self.batch_size,
            rows=mesh_lib.local_rows(self.mesh, self.batch_size),
            threads=data.threads,
            prefetch=data.prefetch,
            bad=self.bad,
            interrupted=_give_up_reading,
        ) as batches:
            return evaluation.evaluate(
                self._step,
                params,
                batches,
                mesh=self.mesh,
                batch_size=self.batch_size,
                size=len(self.source),
                stop=multihost.told_to_stop,
            )


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
    schedule = _schedule(config, total_steps=lengths.total, dataset_size=len(source))
    begin = _begin(config, workdir if resumed else None, names)
    options, given = begin.options, config
    config = setup.with_value_range(config, begin.preprocessing)
    graphdef, shapes = state.abstract_params(options)
    optax_rule = optimizer.make_optimizer(config.optimizer, schedule, shapes)
    abstract = state.abstract_state(options, optax_rule, average=config.ema > 0, mesh=mesh)
    transform = preprocess.train_transform(
        config.data, size=options.image_size, channels=options.channels
    )
    evaluator.bind(graphdef, options, config.data)
    meeting.end(facts.of_plan(data.record.splits, begin.params, workdir))
    told, start = (replaced, begin.report, *data.notes), 0
    # Before anything is written: no checkpoint may be sound, or the other run may not fit.
    if resumed:
        found = resumption.resume(workdir, given, abstract, dataset_size=len(source))
        start, first = found.step, found.state
        told += tuple(f"note: {note}" for note in found.notes)
    elif config.init_state == "all":
        first, taken = branch.first_state(config, options, abstract=abstract, class_names=names)
        told = (replaced, *taken, *data.notes)

    def write() -> None:
        if resumed:
            found.write()
        else:
            run_folder.write_run(workdir, given, setup.make_card(config, begin, names))
        data.write(workdir, step=start)

    multihost.primary_first("run written", write)
    if not resumed and config.init_state != "all":
        first = state.create(
            options, optax_rule, abstract=abstract, seed=config.seed, params=begin.params
        )
    agreement.compare({})  # devices do not wait for a process that still compiles
    store = stack.enter_context(store_lib.Store(workdir, config.checkpoint))
    bad = BadImages(size=len(source), max_bad=config.data.max_bad, reported=evaluator.bad.reported)
    batches = _batches(config, source, transform, mesh, bad, start=start, stop=lengths.total)
    return Run(
        config=config,
        mesh=mesh,
        lengths=lengths,
        store=store,
        lease=lease,
        state=first,
        step=_train_step(config, graphdef, options, optax_rule, schedule, abstract),
        batches=stack.enter_context(batches),
        evaluator=evaluator,
        messages=setup.messages(config, options, shapes, mesh, len(source), start, told),
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


def _schedule(config: Config, *, total_steps: int, dataset_size: int) -> optax.Schedule:
    return schedules.make_schedule(
        config.schedule,
        peak=config.optimizer.learning_rate,
        total_steps=total_steps,
        batch_size=config.batch_size,
        dataset_size=dataset_size,
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
        interrupted=_give_up_reading,
    )


def _give_up_reading() -> bool:
    """Whether to wait no longer for images that are not ready. Several processes wait a while."""
    return stopping.told(for_seconds=READ_LIMIT if jax.process_count() > 1 else 0.0)


def _train_step(
    config: Config,
    graphdef: nnx.GraphDef,
    options: Options,
    optax_rule: optax.GradientTransformation,
    schedule: optax.Schedule,
    abstract: state.State,
) -> Any:
    prepare_batch, loss = step.classification_step_parts(config, num_classes=options.num_classes)
    return step.make_train_step(
        graphdef,
        prepare=prepare_batch,
        loss=loss,
        optimizer=optax_rule,
        schedule=schedule,
        abstract=abstract,
        accumulate=config.optimizer.accumulate,
        ema=config.ema,
        ema_begins=config.init_state != "all",  # else it goes on
    )


def evaluate(
    config: Config, workdir: str | os.PathLike[str], *, which: store_lib.Which
) -> tuple[int, dict[str, float]]:
    """Measures a checkpoint of the run in `workdir`: its step, and what `Evaluator` says.

    On the run's mesh, or, where that does not fit the devices at hand, with all of them as `data`.
    """
    agreement.compare(facts.of_start(config, workdir))
    card = run_folder.read_card(workdir)
    zoo.check_head(card.options)
    try:
        mesh = mesh_lib.make_mesh(config.mesh)
    except ValueError:
        mesh = mesh_lib.make_mesh(MeshConfig())
    with agreement.Meeting() as meeting:
        source = sources.open_eval(config.data)
        evaluator = Evaluator(
            config,
            mesh=mesh,
            source=source,
            class_names=card.class_names,
            num_classes=card.options.num_classes,
        )
        identity = source.identity()
        meeting.end(facts.of_data({"eval": identity}))
    for note in (evaluator.note, datasets.evaluated_otherwise(workdir, source.name, identity)):
        if note and multihost.is_primary():
            logging.getLogger(__name__).warning("%s: %s", os.fspath(workdir), note)
    graphdef, shapes = state.abstract_params(card.options)
    names = ("params", "ema") if run_folder.read_config(workdir).ema else ("params",)
    placed = jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        shapes,
        rules.tree_shardings(shapes, mesh),
    )
    with store_lib.Store(workdir, config.checkpoint, read_only=True) as store:
        found = fallback.restore(store, dict.fromkeys(names, placed), which, substitute=True)
    if multihost.is_primary():
        for note in found.notes:
            logging.getLogger(__name__).warning("%s: %s", os.fspath(workdir), note)
    with jax.set_mesh(mesh):
        data = setup.with_value_range(config, card.preprocessing).data
        return found.step, evaluator.bind(graphdef, card.options, data)(found.state)
