"""Compiles steps in a process of its own, because the compiler may end the process.

It reads jobs from its input, one JSON text per line, and answers each with a line of JSON. Its
argument is the folder of compiled programs.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

import jax
from jax.experimental import topologies

from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import designed
from vit_jax.planning import job as job_lib
from vit_jax.planning.job import Job, Result
from vit_jax.training import frozen
from vit_jax.training.design import Design
from vit_jax.workdir import place

_PROBE = {"xla_tpu_max_hbm_size_mib": "8"}  # the compiler says what it needs, and stops early
# Without a GPU, the compiler cannot try which way of a matrix product is the fastest.
_WITHOUT_GPU = {"xla_gpu_autotune_level": "0", "xla_gpu_enable_triton_gemm": "False"}
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
    if job.topology.chip.platform == "gpu":  # its compiler cannot probe
        job = dataclasses.replace(job, probe=False, options={**_WITHOUT_GPU, **job.options})
    try:
        plan = _design(job)
    except ValueError as error:
        return Result(failure=" ".join(str(error).split()), bad_input=True)
    step = designed.facts(plan)
    with jax.set_mesh(plan.mesh):
        lowered = plan.step.lower(plan.abstract, dict(plan.batch), plan.abstract_frozen)
    program = _digest(job, plan, lowered)
    result = job_lib.kept(folder, program, with_text=not job.probe)
    if result is None:
        result = dataclasses.replace(_compile(job, lowered, folder, program), program=program)
        job_lib.keep(folder, program, result)
    return dataclasses.replace(result, step=step)


def _digest(job: Job, plan: Design, lowered: jax.stages.Lowered) -> str:
    """A digest of all that the compiled program depends on."""
    text = lowered.as_text()
    assert text is not None, "every lowered program has a text"
    order = [device.id for device in plan.mesh.devices.flat]
    described = sorted(job.topology.compiler_options.items())
    topology = (job.topology.compiler_name, job.topology.slices, described)
    memory = job.topology.chip.memory  # a result says whether the program fits
    options = {**plan.compiler_options, **job.options}  # as the compiler gets them
    versions = job_lib.versions(job.topology.chip.platform)
    environment = job_lib.compiler_settings()
    settings = (topology, memory, job.probe, sorted(options.items()), versions, environment)
    return hashlib.sha256(f"{text}{order}{settings}".encode()).hexdigest()[:32]


def _compile(job: Job, lowered: jax.stages.Lowered, folder: pathlib.Path, program: str) -> Result:
    began = time.monotonic()
    # JAX declares texts only, but some options of its own are numbers.
    options: dict[str, Any] = {**job.options, **(_PROBE if job.probe else {})}
    try:
        compiled = lowered.compile(options)
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
        path = job_lib.text_path(folder, program)
        place.write_whole(path, gzip.compress(text.encode(), compresslevel=3))
    needed = float(memory.peak_memory_in_bytes)
    fits = needed <= job.topology.chip.memory
    return Result(needed=needed, fits=fits, seconds=time.monotonic() - began)


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
    described = topologies.get_topology_desc(
        platform="cuda" if topology.chip.platform == "gpu" else "tpu",
        topology_name=topology.compiler_name,
        **topology.compiler_options,
    )
    mesh = mesh_lib.make_mesh(job.config.mesh, devices=list(described.devices))
    models = frozen.read(job.config.objective, job.facts)
    return designed.of_config(job.config, job.facts, mesh, models=models)


if __name__ == "__main__":
    main()
