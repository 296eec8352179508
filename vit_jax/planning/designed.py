"""The step of a config on a mesh, and what can be said of it before it is compiled."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.models import attention_choice, flops, zoo
from vit_jax.models.options import EncoderOptions
from vit_jax.objectives import Objective
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import job as job_lib
from vit_jax.planning import model_flops
from vit_jax.training import design as design_lib
from vit_jax.training import frozen, state
from vit_jax.training.design import Design

# A number of images that is no size of any model, so that it marks the axis of the batch.
TRACED = 1009


def of_config(
    config: Config, facts: DataFacts, mesh: Mesh, *, models: Mapping[str, frozen.Description]
) -> Design:
    """The design of a config that starts from new parameters, without its data.

    `models` are the frozen models of its objective. Raises ValueError if the config cannot be run.
    """
    tables = _rows(config.objective, facts)
    return design_lib.design(config, facts, mesh, frozen=models, tables=tables)


def _rows(objective: Objective, facts: DataFacts) -> dict[str, jax.ShapeDtypeStruct]:
    """A row of each table of an objective, whose file need not exist."""
    logits = jax.ShapeDtypeStruct((facts.num_classes,), jnp.float16)
    one_class = jax.ShapeDtypeStruct((), jnp.int32)
    tables = objective.tables()
    return {name: logits if file.logits else one_class for name, file in tables.items()}


def facts(plan: Design) -> job_lib.Step:
    """What a plan and a benchmark say of a step; found without a compiler."""
    config, options, mesh = plan.config, plan.options, plan.mesh
    traced = trace(plan)
    share = config.batch_size / config.optimizer.accumulate / mesh_lib.batch_parts(mesh)
    slices = [_slice(device) for device in mesh.devices.flat]
    abstract = plan.abstract
    return job_lib.Step(
        mesh=dict(mesh.shape),
        slice_of=slices if any(slices) else [],
        parameters=state.count(plan.shapes),
        steps=plan.lengths.total,
        flops=traced.flops * config.batch_size,
        traced_flops=traced.with_remat * config.batch_size,
        bytes=job_lib.Bytes(
            parameters=_held(abstract["params"]),
            optimizer=_held(abstract["opt_state"]),
            average=_held(abstract.get("ema", {})),
            gradients=_held(plan.trained.arrays(plan.trained.part_of(abstract["params"]))),
            batch=_held(plan.batch),
            frozen=_held(plan.abstract_frozen),
            activations=traced.kept * share,
        ),
        tokens=_tokens(options),
        widths={
            name: getattr(options, name) for name in ("width", "mlp_dim") if hasattr(options, name)
        },
        image_bytes=math.prod(options.image_size) * options.channels,
        remat=str(getattr(options, "remat", "none")),
        unroll=int(getattr(options, "unroll", 1)),
    )


def _tokens(options: zoo.Options) -> int:
    """The tokens of an image that the blocks compute in one array; 0 if the model has none."""
    if isinstance(options, EncoderOptions) and options.attention == "streams":
        return options.tokens - options.prefix_tokens
    return getattr(options, "tokens", 0)


def _slice(device: Any) -> int:
    """The TPU slice of a device, or the process of a GPU: a plan has one process per node."""
    gpu = device.platform == "gpu"
    return int(device.process_index if gpu else getattr(device, "slice_index", None) or 0)


def _held(tree: Any) -> float:
    """The bytes that a device holds of arrays that are split as their shardings say."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


class Traced(NamedTuple):
    """What the traced loss says of one image."""

    flops: float  # that the model asks for, forward and backward
    with_remat: float  # the same and what the backward pass recomputes
    kept: float  # bytes that the backward pass needs


def trace(plan: Design) -> Traced:
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = {
        name: jax.ShapeDtypeStruct((TRACED, *one.shape[1:]), one.dtype)
        for name, one in plan.batch.items()
    }
    batch = jax.eval_shape(lambda batch, key: plan.prepare(batch, key=key), batch, key)
    objective, trained = plan.minimised, plan.trained

    def loss(
        params: Any, batch: Any, key: Any, models: Any, *, graphdef: nnx.GraphDef = plan.graphdef
    ) -> jax.Array:
        part = trained.part_of(params)
        model = trained.model(lambda own: nnx.merge(graphdef, own), params, part)
        return objective.loss(model, batch, key=key, frozen=plan.bind(models)).values.sum()

    def kept(params: Any, *rest: Any) -> Any:
        return jax.vjp(lambda params: loss(params, *rest), params)[1]

    arguments = (plan.shapes, batch, key, plan.abstract_frozen)
    plain = state.abstract_params(attention_choice.plain(plan.options))[0]
    program = jax.make_jaxpr(functools.partial(loss, graphdef=plain))(*arguments).jaxpr
    flags = jax.tree.leaves(trained.mask)
    flags += [False] * (len(program.invars) - len(flags))
    marked = (x for x in jax.tree.leaves(jax.eval_shape(kept, *arguments)) if TRACED in x.shape)
    return Traced(
        flops=model_flops.training(program, flags) / TRACED,
        with_remat=flops.of_program(jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr) / TRACED,
        kept=sum(math.prod(x.shape) * x.dtype.itemsize for x in marked) / TRACED,
    )
