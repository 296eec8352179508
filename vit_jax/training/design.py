"""The design of a run: its step, shapes and shardings, without data, files or device work.

`design` is the only place where a step is assembled: runs, benchmarks, tests and ahead-of-time
compilation use it. It allocates nothing and compiles nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from vit_jax.config import Config
from vit_jax.data import augment, pipeline
from vit_jax.data.record import DataFacts
from vit_jax.evaluators import held_out
from vit_jax.models.zoo import Options
from vit_jax.objectives import Batch, Objective
from vit_jax.parallel import compiler
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import compute, on_features, progressive, setup, state
from vit_jax.training import frozen as frozen_lib
from vit_jax.training import trained as trained_lib
from vit_jax.training.on_features import OnFeatures
from vit_jax.training.step import Bind, Prepare, WithLoss, make_train_step
from vit_jax.training.trained import Trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """A run without its data and its arrays."""

    config: Config  # its data.mean and data.std are set
    start: setup.Start
    mesh: Mesh
    lengths: setup.Lengths
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    trained: Trained
    graphdef: nnx.GraphDef
    shapes: Any  # of the parameters
    abstract: state.State  # shapes with shardings
    stages: progressive.Stages  # the image size of every step
    frozen: Mapping[str, frozen_lib.Frozen]
    batch: Mapping[str, jax.ShapeDtypeStruct]  # global shapes with shardings
    eval_batch: Mapping[str, jax.ShapeDtypeStruct]
    compiler_options: Mapping[str, str]  # of the step
    prepare: Prepare  # a batch of the pipeline -> the batch for the loss
    options: Options  # of the model, with a value for each compute option
    step: jax.stages.Wrapped  # (state, batch, frozen) -> (state, metrics)
    eval_step: held_out.EvalStep  # (params, batch, frozen) -> sums
    bind: Bind  # parameters of the frozen models -> these models

    @property
    def objective(self) -> Objective:
        return self.config.objective

    @property
    def minimised(self) -> WithLoss:
        """What the step minimises: the objective on normalised images, or on features."""
        return _minimised(self.config)

    @property
    def abstract_frozen(self) -> dict[str, Any]:
        """Shapes of the parameters of the frozen models, by name."""
        return {name: model.abstract for name, model in self.frozen.items()}


def design(
    config: Config,
    facts: DataFacts,
    mesh: Mesh,
    *,
    start: setup.Start | None = None,
    frozen: Mapping[str, frozen_lib.Description] | None = None,
    tables: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> Design:
    """The design of a run on data with these facts.

    `start` is the model that the run starts from; unset: a new model of the zoo. `frozen` describes
    the frozen models of the objective, and `tables` a row of each of its tables. Raises ValueError
    if the config cannot be run.
    """
    mesh_lib.check_batch(
        mesh, config.batch_size, accumulate=config.optimizer.accumulate, name="config.batch_size"
    )
    lengths = setup.lengths(config, dataset_size=facts.train_size)
    start = start or setup.zoo_start(config, facts)
    config = setup.with_value_range(config, start.preprocessing)
    objective = config.objective
    _check(objective, start.options, mesh)
    compute.check(start.options, config.compiler_options)
    accumulate = config.optimizer.accumulate
    options = compute.choose(
        start.options,
        mesh,
        images=compute.images_at_once(mesh, config.batch_size, accumulate=accumulate),
        steps=lengths.total * accumulate,
        encoded=objective.encoded,
    )
    _check_augmentations(config, options, facts)
    examples = dict(tables or {})
    if config.tune.caches:
        on_features.check(config, options)
        examples |= on_features.shapes(options)
    schedule = setup.schedule(config, dataset_size=facts.train_size)
    graphdef, shapes = state.abstract_params(options)
    rule, trained = trained_lib.optimizer_of(
        config.optimizer, config.tune, schedule, options=options, total_steps=lengths.total
    )
    abstract = state.abstract_state(options, rule, average=config.ema > 0, mesh=mesh)
    value_range: dict[str, Any] = {"mean": config.data.mean, "std": config.data.std}
    models = frozen_lib.designs(
        frozen or {}, objective=objective, options=options, mesh=mesh, **value_range
    )
    bind = frozen_lib.binder(models)
    stages = progressive.stages(config, final=options.image_size, total_steps=lengths.total)
    if stages.ends and trained.frozen_blocks:
        raise ValueError(
            "config.progressive and config.tune.kind=blocks cannot be used together: leave one out"
        )
    build = progressive.Models(options, graphdef, stages)
    build.check(objective, facts, frozen={n: one.options for n, one in (frozen or {}).items()})
    prepare = _preparation(config, build)
    unroll = getattr(options, "unroll", 1)
    compiler_options = compiler.options(mesh, config.compiler_options, unroll=unroll)
    return Design(
        config=config,
        start=start,
        mesh=mesh,
        lengths=lengths,
        schedule=schedule,
        optimizer=rule,
        trained=trained,
        graphdef=graphdef,
        shapes=shapes,
        abstract=abstract,
        stages=stages,
        frozen=models,
        bind=bind,
        batch=_batch(
            _inputs(config), options, facts, mesh, size=config.batch_size, others=examples
        ),
        eval_batch=_batch(
            pipeline.EVAL_ARRAYS, options, facts, mesh, size=eval_batch_size(config, mesh)
        ),
        compiler_options=compiler_options,
        prepare=prepare,
        options=options,
        step=_step(
            config,
            build,
            trained=trained,
            prepare=prepare,
            optimizer=rule,
            schedule=schedule,
            abstract=abstract,
            bind=bind,
            compiler_options=compiler_options,
        ),
        eval_step=held_out.make_eval_step(graphdef, objective=objective, bind=bind, **value_range),
    )


def _step(config: Config, build: progressive.Models, **parts: Any) -> jax.stages.Wrapped:
    """The training step as the config says; `parts` are the other arguments of the step."""
    continues = config.init_state == "all"  # the average of the other run, which was warm already
    return make_train_step(
        build,
        objective=_minimised(config),
        accumulate=config.optimizer.accumulate,
        ema=config.ema,
        ema_warmup=0.0 if continues else config.ema_warmup,
        ema_begins=not continues,
        **parts,
    )


def _minimised(config: Config) -> WithLoss:
    objective = config.objective.bound(mean=config.data.mean, std=config.data.std)
    return OnFeatures(objective=objective) if config.tune.caches else objective


def _preparation(config: Config, models: progressive.Models) -> Prepare:
    """A function from a batch of the pipeline to the batch for the loss; it runs on the devices.

    The objective adds targets and masks, then the augmentations change images and targets.
    """
    objective, augmentations = config.objective, setup.augmentations(config)

    def prepare(batch: Batch, *, key: jax.Array) -> Batch:
        options = models.options(batch)
        dtype = jnp.dtype("float32" if objective.exact_images else options.dtype)
        batch = objective.prepare(batch, options=options, key=key)
        if "image" not in batch:
            return batch
        return augment.augment(batch, augmentations, key=key, dtype=dtype)

    return prepare


def eval_batch_size(config: Config, mesh: Mesh) -> int:
    """The images of an evaluation step, rounded up to a multiple that the mesh can split.

    The result of an evaluation does not depend on it.
    """
    wanted, parts = config.eval_batch_size or config.batch_size, mesh_lib.batch_parts(mesh)
    return -(-wanted // parts) * parts


def _check(objective: Objective, options: Options, mesh: Mesh) -> None:
    """Raises ValueError if the devices cannot compute the model, or batches lack an input."""
    _check_inputs(objective)
    platform = mesh.devices.flat[0].platform
    if getattr(options, "attention", "auto") == "cudnn" and platform != "gpu":
        raise ValueError(
            f"config.model.attention is 'cudnn', which needs GPUs, but the devices are {platform}:"
            " use --config.model.attention=auto"
        )


def _batch(
    names: tuple[str, ...],
    options: Options,
    facts: DataFacts,
    mesh: Mesh,
    *,
    size: int,
    others: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> dict[str, jax.ShapeDtypeStruct]:
    """Global shapes of the arrays of a batch that go to the devices.

    `names` are those of the pipeline; `others` has the shape of an example of each other array.
    """
    sharding = NamedSharding(mesh, mesh_lib.BATCH)
    several_of = facts.num_classes if facts.multi_label else 0
    shapes = pipeline.example_shapes(options.image_size, options.channels, several_of=several_of)
    examples = {name: jax.ShapeDtypeStruct(*shapes[name]) for name in names} | dict(others or {})
    return {
        name: jax.ShapeDtypeStruct((size, *one.shape), one.dtype, sharding=sharding)
        for name, one in examples.items()
    }


def _inputs(config: Config) -> tuple[str, ...]:
    """The arrays of the pipeline that the loss needs."""
    names = config.objective.inputs
    return tuple(name for name in names if not (config.tune.caches and name == "image"))


def _check_augmentations(config: Config, options: Options, facts: DataFacts) -> None:
    augment.check(
        config.augment,
        gives=config.objective.gives,
        channels=options.channels,
        multi_label=facts.multi_label,
    )


def _check_inputs(objective: Objective) -> None:
    """Raises ValueError if the objective asks for an array that training batches do not have."""
    for name in objective.inputs:
        if name not in pipeline.TRAIN_ARRAYS:
            raise ValueError(
                f"{type(objective).__name__}.inputs asks for {name!r}, which training batches do"
                f" not have: choose from {', '.join(pipeline.TRAIN_ARRAYS)}"
            )
