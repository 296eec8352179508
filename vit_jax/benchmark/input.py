"""`benchmark input`: the images that this host reads, decodes, crops and augments per second."""

import time

from vit_jax.benchmark.report import Measured, Report
from vit_jax.benchmark.samples import Quantity
from vit_jax.benchmark.step import Repeats
from vit_jax.config import Config
from vit_jax.data import opening
from vit_jax.data.bad_images import BadImages
from vit_jax.data.batches import Batches
from vit_jax.data.record import DataFacts, is_multi_label
from vit_jax.parallel import machine
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.planning import designed
from vit_jax.training import feeding, frozen

_ON_CPU = (
    "the devices of this platform are the host's own cores, which a step and the input share: a run"
    " is slower than both alone"
)


def measure(config: Config, *, repeats: Repeats, step: Report | None = None) -> Measured:
    """Measures the batches of a run, made as fast as the host can. `repeats` counts batches.

    `step` is the report of its step, against which the input may be too slow. Raises ValueError if
    the config cannot be run or its data cannot be opened, RunFailed for too many broken images.
    """
    feed = _feed(config)
    # At the end of a run fewer batches are made at once, so a few more follow those that count.
    count = repeats.warmup + repeats.rounds * repeats.steps + config.data.prefetch
    start = max(feed.design.stages.ends, default=0)  # from here on, images have the final size
    bad = BadImages(size=len(feed.source), max_bad=config.data.max_bad)
    with feed.batches(start=start, stop=start + count, bad=bad) as batches:
        for _ in range(repeats.warmup):
            next(batches)
        rounds = [_round(batches, repeats.steps) for _ in range(repeats.rounds)]
    images = len(mesh_lib.local_rows(feed.design.mesh, config.batch_size))
    batch = Quantity(unit="s", rounds=tuple((seconds,) for seconds, _ in rounds))
    work = Quantity(unit="s", rounds=tuple((used / images,) for _, used in rounds))
    on_cpu = feed.design.mesh.devices.flat[0].platform == "cpu"
    return Measured(
        measured={"batch": batch, "cpu_time_of_an_image": work},
        results={
            "images_of_a_batch": images,
            "images_per_second": images / batch.median,
            "images_per_second_per_core": 1 / work.median,
            "cores": machine.host_cores(),
            "busy_cores": images * work.median / batch.median,
            "threads": config.data.threads,
            "broken_images": bad.count,
            **_against(step, batch),
        },
        notes=[_ON_CPU] if step and on_cpu else [],
    )


def _feed(config: Config) -> feeding.Feed:
    """The input of the run, without its held-out images."""
    mesh, labelled = mesh_lib.make_mesh(config.mesh), "label" in config.objective.inputs
    source = opening.open_train(config.data, labelled=labelled)
    names = source.class_names if labelled else ()
    facts = DataFacts(
        train_size=len(source),
        class_names=names,
        num_classes=len(names),
        multi_label=bool(names) and is_multi_label(source),
    )
    models = frozen.read(config.objective, facts)
    return feeding.feed(designed.of_config(config, facts, mesh, models=models), source)


def _round(batches: Batches, count: int) -> tuple[float, float]:
    """The seconds, and the CPU-seconds of all threads, for each of `count` batches."""
    began, used = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return (time.perf_counter() - began) / count, (time.process_time() - used) / count


def _against(step: Report | None, batch: Quantity) -> dict[str, float]:
    """The share of the time that the devices wait for images, if nothing else stops them."""
    if step is None:
        return {}
    seconds = step.measured["step"].median
    return {"step_seconds": seconds, "input_bound": max(0.0, 1 - seconds / batch.median)}
