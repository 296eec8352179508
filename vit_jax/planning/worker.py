"""Compiles steps for TPUs in a process of its own, because the compiler may end the process.

It reads jobs from its input, one JSON text per line, and answers each with a line of JSON. Its
argument is the folder of compiled programs.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies as tpu_topologies

from vit_jax.data.record import DataFacts
from vit_jax.models import flops, zoo
from vit_jax.objectives import Objective
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import job as job_lib
from vit_jax.planning import model_flops
from vit_jax.planning.job import Job, Result
from vit_jax.training import design as design_lib
from vit_jax.training import frozen, optimizer, state
from vit_jax.training.design import Design

# A number of images that is no size of any model, so that it marks the axis of the batch.
TRACED = 1009
_PROBE = {"xla_tpu_max_hbm_size_mib": "8"}  # the compiler says what it needs, and stops early
_UNITS = {"": 1.0, "K": 2.0**10, "M": 2.0**20, "G": 2.0**30, "T": 2.0**40}


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    with _answers() as answers:
        for line in sys.stdin:
            result = run(job_lib.of_json(line), folder)
            print(job_lib.result_to_json(result), file=answers, flush=True)


@contextlib.contextmanager
def _answers() -> Iterator[TextIO]:
    """The standard output; what the compiler prints goes to the standard error instead."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def run(job: Job, folder: pathlib.Path) -> Result:
    """Designs and compiles a step.

    A program that was compiled before, for whatever config, is not compiled again: its result is
    in `folder`/PROGRAM.json, and its text in `folder`/PROGRAM.hlo.gz if it fits.
    """
    try:
        plan = _design(job)
    except ValueError as error:
        return Result(failure=" ".join(str(error).split()), bad_input=True)
    step = _facts(plan)
    with jax.set_mesh(plan.mesh):
        lowered = plan.step.lower(plan.abstract, dict(plan.batch), plan.abstract_frozen)
    program = _digest(job, plan, lowered)
    path = folder / f"{program}.json"
    if path.exists():
        return dataclasses.replace(job_lib.result_of_json(path.read_text()), step=step)
    result = dataclasses.replace(_compile(job, lowered, folder, program), program=program)
    job_lib.write(path, job_lib.result_to_json(result))
    return dataclasses.replace(result, step=step)


def _digest(job: Job, plan: Design, lowered: jax.stages.Lowered) -> str:
    """A digest of all that the compiled program depends on."""
    text = lowered.as_text()
    assert text is not None, "every lowered program has a text"
    order = [device.id for device in plan.mesh.devices.flat]
    topology = (job.topology.compiler_name, job.topology.slices)
    options = {**plan.compiler_options, **job.options}  # as the compiler gets them
    settings = (topology, job.probe, sorted(options.items()), job_lib.versions())
    return hashlib.sha256(f"{text}{order}{settings}".encode()).hexdigest()[:32]


def _compile(job: Job, lowered: jax.stages.Lowered, folder: pathlib.Path, program: str) -> Result:
    began = time.monotonic()
    try:
        compiled = lowered.compile({**job.options, **(_PROBE if job.probe else {})})
    except jax.errors.JaxRuntimeError as error:
        seconds = time.monotonic() - began
        needed = bytes_needed(str(error))
        if needed is None:
            return Result(failure=" ".join(str(error).split())[:2000], seconds=seconds)
        fits = needed <= job.topology.chip.memory
        return Result(needed=needed, fits=fits, seconds=seconds)
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and memory is not None, "the compiler gives both for every program"
    if not job.probe:
        with gzip.open(folder / f"{program}.hlo.gz", "wt", compresslevel=3) as file:
            file.write(text)
    needed = float(memory.peak_memory_in_bytes)
    return Result(needed=needed, seconds=time.monotonic() - began)


def bytes_needed(message: str) -> float | None:
    """The bytes in the compiler's message that the HBM is too small, else None."""
    for pattern in (
        r"Used ([\d.]+)([KMGT]?)i?B? of [\d.]+[KMGT]?i?B? hbm",
        r"total memory required[^(]*\(([\d.]+)([KMGT]?)\)",
    ):
        if match := re.search(pattern, message):
            return float(match.group(1)) * _UNITS[match.group(2)]
    return None


def _design(job: Job) -> Design:
    topology = job.topology
    described = tpu_topologies.get_topology_desc(
        platform="tpu", topology_name=topology.compiler_name, **topology.compiler_options
    )
    config, facts = job.config, job.facts
    mesh = mesh_lib.make_mesh(config.mesh, devices=list(described.devices))
    return design_lib.design(
        config,
        facts,
        mesh,
        frozen=frozen.read(config.objective, facts),
        tables=_rows(config.objective, facts),
    )


def _rows(objective: Objective, facts: DataFacts) -> dict[str, jax.ShapeDtypeStruct]:
    """A row of each table of an objective, whose file need not exist."""
    logits = jax.ShapeDtypeStruct((facts.num_classes,), jnp.float16)
    one_class = jax.ShapeDtypeStruct((), jnp.int32)
    tables = objective.tables()
    return {name: logits if file.logits else one_class for name, file in tables.items()}


def _facts(plan: Design) -> job_lib.Step:
    config, options, mesh = plan.config, plan.options, plan.mesh
    traced = _traced(plan)
    share = config.batch_size / config.optimizer.accumulate / mesh_lib.batch_parts(mesh)
    slices = [getattr(device, "slice_index", None) or 0 for device in mesh.devices.flat]
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
            gradients=_held(abstract["params"]),
            batch=_held(plan.batch),
            frozen=_held(plan.abstract_frozen),
            activations=traced.kept * share,
        ),
        tokens=getattr(options, "tokens", 0),
        widths={
            name: getattr(options, name) for name in ("width", "mlp_dim") if hasattr(options, name)
        },
        image_bytes=math.prod(options.image_size) * options.channels,
        remat=str(getattr(options, "remat", "none")),
        unroll=int(getattr(options, "unroll", 1)),
    )


def _held(tree: Any) -> float:
    """The bytes that a device holds of arrays that are split as their shardings say."""
    return float(
        sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def _plain(plan: Design) -> nnx.GraphDef:
    """The model with the plain form of attention: faster forms have products of their own."""
    if not hasattr(plan.options, "attention"):
        return plan.graphdef
    return state.abstract_params(zoo.change(plan.options, attention="xla"))[0]


class _Traced(NamedTuple):
    """What the traced loss says of one image."""

    flops: float  # that the model asks for, forward and backward
    with_remat: float  # the same and what the backward pass recomputes
    kept: float  # bytes that the backward pass needs


def _traced(plan: Design) -> _Traced:
    key = jax.eval_shape(lambda: jax.random.key(0))
    batch = {
        name: jax.ShapeDtypeStruct((TRACED, *one.shape[1:]), one.dtype)
        for name, one in plan.batch.items()
    }
    batch = jax.eval_shape(lambda batch, key: plan.prepare(batch, key=key), batch, key)
    objective = plan.objective.bound(mean=plan.config.data.mean, std=plan.config.data.std)

    trains = optimizer.trained(
        plan.config.optimizer, plan.shapes, statistics=state.statistics(plan.options)
    )

    graphdef = plan.graphdef

    def loss(params: Any, batch: Any, key: Any, models: Any) -> jax.Array:
        held = jax.tree.map(lambda p, t: p if t else jax.lax.stop_gradient(p), params, trains)
        model = nnx.merge(graphdef, held)
        return objective.loss(model, batch, key=key, frozen=plan.bind(models)).values.sum()

    def kept(params: Any, *rest: Any) -> Any:
        return jax.vjp(lambda params: loss(params, *rest), params)[1]

    arguments = (plan.shapes, batch, key, plan.abstract_frozen)
    graphdef = _plain(plan)
    program = jax.make_jaxpr(loss)(*arguments).jaxpr
    graphdef = plan.graphdef
    flags = jax.tree.leaves(trains)
    trained = [*flags, *[False] * (len(program.invars) - len(flags))]
    marked = (x for x in jax.tree.leaves(jax.eval_shape(kept, *arguments)) if TRACED in x.shape)
    return _Traced(
        flops=model_flops.training(program, trained) / TRACED,
        with_remat=flops.of_program(jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr) / TRACED,
        kept=sum(math.prod(x.shape) * x.dtype.itemsize for x in marked) / TRACED,
    )


if __name__ == "__main__":
    main()
