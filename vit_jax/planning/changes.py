"""Changes of a config that make a step fit, and the config after a change."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from vit_jax import config as config_lib
from vit_jax.config import Config
from vit_jax.duration import Duration
from vit_jax.errors import RunFailed
from vit_jax.planning.compiling import Compiler
from vit_jax.planning.job import Job, Step
from vit_jax.training import setup

WANTED = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Fields of a config and their new values, and what the change costs."""

    fields: Mapping[str, Any]
    price: str

    def __str__(self) -> str:
        return " ".join(f"--config.{path}={value}" for path, value in self.fields.items())


def changed(config: Config, fields: Mapping[str, Any]) -> Config:
    """The config with other values. Raises ValueError if it cannot have them."""
    values = config_lib.to_fields(config)
    for path, value in fields.items():
        *groups, last = path.split(".")
        place = values
        for group in groups:
            place[group] = dict(place[group])
            place = place[group]
        place[last] = value
    return config_lib.of_fields(values)


def with_batch(job: Job, batch_size: int) -> Job:
    """The job with another batch size and the same number of steps.

    A run of as many epochs has fewer steps with a larger batch, and they may be too few for its
    warm-up; the step itself is the same.
    """
    steps = setup.lengths(job.config, dataset_size=job.facts.train_size).total
    fields = {"batch_size": batch_size, "total": dataclasses.asdict(Duration(steps=steps))}
    return dataclasses.replace(job, config=changed(job.config, fields))


def scanned(job: Job) -> Job:
    """The job with scanned blocks, if the run itself would choose to unroll them on TPUs."""
    if job.topology.chip.platform != "tpu" or job.config.model.get("unroll"):
        return job
    try:
        return dataclasses.replace(job, config=changed(job.config, {"model.unroll": 1}))
    except ValueError:  # the model has no blocks
        return job


def that_fit(compiler: Compiler, job: Job, step: Step) -> list[tuple[Change, float]]:
    """The cheapest changes with which the step fits, and the bytes that it needs then.

    Each was tried with the compiler, in the order of what it costs.
    """
    found: list[tuple[Change, float]] = []
    changed_fields: set[str] = set()  # of changes that fit: a stronger value is not needed
    for change in _candidates(job.config, step):
        if changed_fields & set(change.fields):
            continue
        try:
            config = changed(job.config, change.fields)
            result = compiler.one(dataclasses.replace(job, config=config, probe=True))
        except (ValueError, RunFailed):
            continue  # the config cannot have this value, or the compiler fails to probe it
        if result.fits:
            found.append((change, result.needed))
            changed_fields |= set(change.fields)
        if len(found) == WANTED:
            break
    return found


def _candidates(config: Config, step: Step) -> Iterator[Change]:
    """Changes that need less memory, the cheapest first."""
    devices, batch = step.batch_parts, config.batch_size
    split = [n for n in (2, 4, 8, 16, 32, 64) if step.mesh["fsdp"] < n <= devices]
    fsdp: list[dict[str, Any]] = [
        {"mesh.data": -1, "mesh.fsdp": n} for n in split if devices % n == 0
    ]
    remat: list[dict[str, Any]] = [{"model.remat": kind} for kind in ("dots", "full")]
    remat = remat[{"none": 0, "dots": 1, "lean": 1}.get(step.remat, 2) :]
    bfloat16 = {"optimizer.moment_dtype": "bfloat16"}
    if getattr(config.optimizer.rule, "moment_dtype", "bfloat16") != "bfloat16":
        yield Change(fields=bfloat16, price="moments in bfloat16: as fast, rounded moments")
    if config.model.get("dtype") == "float32":
        yield Change(fields={"model.dtype": "bfloat16"}, price="faster, rounded activations")
    for fields in fsdp[:1] + fsdp[-1:]:
        yield Change(fields=fields, price="parameters are gathered in every block: a few percent")
    for fields in remat:
        few = fields["model.remat"] == "dots"
        more = "a few percent" if few else "a quarter to a third"
        yield Change(fields=fields, price=f"the backward pass recomputes: {more} more FLOPs")
    for fields in fsdp[-1:]:
        for other in remat[-1:]:
            yield Change(fields={**fields, **other}, price="both: gathers and recomputation")
    for times in (2, 4, 8):
        accumulate = config.optimizer.accumulate * times
        if batch % (accumulate * devices) == 0:
            fields = {"optimizer.accumulate": accumulate}
            yield Change(fields=fields, price=f"{times} times as many passes over the parameters")
    for part in (2, 4, 8):
        if batch % (part * devices) == 0:
            yield Change(fields={"batch_size": batch // part}, price="another run: tune it again")
