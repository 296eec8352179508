"""`benchmark step`: the time and the memory of a training step, and what they amount to."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vit_jax.benchmark.report import Measured
from vit_jax.benchmark.samples import Quantity, in_rounds, once
from vit_jax.benchmark.training import Training, prepared
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.parallel import machine
from vit_jax.parallel.chips import CHIPS
from vit_jax.planning import designed, hlo, schedule
from vit_jax.planning.collectives import Network
from vit_jax.planning.job import Step

_NO_PEAK = "no MFU: the peak of this device is not known; give it in TFLOP/s with --peak"
_OF_PROCESS = (
    "the memory is that of the whole process at its peak, with the compiler: this platform does not"
    " measure the memory of a device"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """How often a step is run: `warmup` steps that are not measured, then `rounds` of `steps`."""

    warmup: int
    rounds: int
    steps: int


def measure(
    config: Config,
    facts: DataFacts,
    *,
    repeats: Repeats,
    peak: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Measures the step. `peak`: bfloat16 FLOP/s of a device; 0: that of its kind, if known.

    `say` gets a line of text before what may take minutes. Raises ValueError if the config cannot
    be run, RunFailed if the memory is too small.
    """
    training = prepared(config, facts, say=say)
    step = designed.facts(training.design)
    times = timed(training, repeats)
    predicted = _predicted(training, step)
    measured = {"step": times, **_memory(training)}
    measured["trace"] = once(training.trace_seconds, unit="s")
    measured["compile"] = once(training.compile_seconds, unit="s")
    peak = peak or machine.peak_flops(jax.devices()[0].device_kind)
    notes = [] if peak else [_NO_PEAK]
    if "device_peak" not in measured:
        notes.append(_OF_PROCESS)
    if training.design.stages.ends:
        notes.append("images have the final size of the run; earlier steps are faster")
    if training.cached:
        notes.append("the program came from the cache of compiled programs: `compile` read it")
    return Measured(
        measured=measured,
        results={
            **rates(config, times, devices=training.devices),
            **_flops(step, times, devices=training.devices, peak=peak),
            "predicted_seconds": predicted,
            "prediction_error": predicted / times.median - 1 if predicted else None,
            "parameters": step.parameters,
            "mesh": step.mesh,
            "remat": step.remat,
            "unroll": step.unroll,
            "attention": str(getattr(training.design.options, "attention", "")),
            "compiled_before": training.cached,
        },
        notes=notes,
    )


def timed(training: Training, repeats: Repeats) -> Quantity:
    """The seconds of the steps, after the warm-up."""
    if repeats.warmup:
        training.run(repeats.warmup)
    times = training.run(repeats.rounds * repeats.steps)
    return Quantity(unit="s", rounds=in_rounds(times, rounds=repeats.rounds))


def rates(config: Config, times: Quantity, *, devices: int) -> dict[str, Any]:
    """Images per second, at the median of the steps."""
    rate = config.batch_size / times.median
    return {
        "batch_size": config.batch_size,
        "images_per_second": rate,
        "images_per_second_per_device": rate / devices,
    }


def _flops(step: Step, times: Quantity, *, devices: int, peak: float) -> dict[str, Any]:
    rate = step.flops / times.median
    return {
        "model_flops": float(step.flops),
        "traced_flops": float(step.traced_flops),
        "model_flops_per_second": rate,
        "peak_flops_per_device": peak or None,
        "mfu": rate / (devices * peak) if peak else None,
    }


def _memory(training: Training) -> dict[str, Quantity]:
    """What the program needs by its compiler, and what was held at the peak."""
    found = {}
    if (stats := training.program.memory_analysis()) is not None:
        needed = (
            stats.argument_size_in_bytes
            + stats.output_size_in_bytes
            + stats.temp_size_in_bytes
            + stats.generated_code_size_in_bytes
            - stats.alias_size_in_bytes
        )
        found["program_memory"] = once(needed, unit="bytes", exact=True)
    if held := machine.device_memory():
        found["device_peak"] = once(held, unit="bytes", exact=True)
    else:
        found["process_peak"] = once(machine.process_memory(), unit="bytes")
    return found


def _predicted(training: Training, step: Step) -> float | None:
    """The seconds that a plan predicts for the program that ran; None: it does not know the chip.

    The text of a program that was compiled for a TPU has the cycles that a plan reads.
    """
    device = training.mesh.devices.flat[0]
    chip = next((chip for chip in CHIPS if chip.kind == device.device_kind), None)
    text = training.program.as_text() if chip else None
    if chip is None or text is None:
        return None
    network = Network(chip, step.mesh, step.slice_of)
    return schedule.walk(hlo.parse(text), network).seconds
