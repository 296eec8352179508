"""Whether an exported program computes what the model computes: both are run on the same images."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax.checkpoints import kernels
from vit_jax.errors import RunFailed
from vit_jax.export.program import Outputs, Program

BATCH = 32  # images that the model sees at once
BOUND = 1e-5  # largest relative difference of a float32 program
ROUNDED = 2.0  # a bfloat16 program may differ by so many times the difference of a bfloat16 model
SAME_CLASS = 0.95  # smallest share of photographs with the same class, in int8
LOST = 0.005  # largest share of labelled photographs that int8 gives a wrong class instead
INT8_BOUND = 0.1  # largest relative difference in int8, without photographs or without classes
SMALLEST = 1e-30  # value that a difference is divided by
MEASURED = 2.0  # seconds that a measurement of speed takes, or two calls
_CALLS = 8  # of one measurement, at most

Run = Callable[[np.ndarray], Outputs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """What both are run on."""

    pixels: np.ndarray  # uint8 (N, H, W, C)
    labels: tuple[int, ...] = ()  # the class of each image; () if unknown
    source: str  # where they are from, in words
    random: bool = False  # whether they are no photographs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """What the model answers, computed by JAX without an export."""

    exact: Outputs  # in float32
    rounded: Outputs  # in bfloat16 or with int8 kernels, as the program
    seconds: Mapping[str, Any]  # of the model in float32, see `speed`

    def report(self, images: Images) -> dict[str, Any]:
        """The entry of the model in parity.json."""
        report = {"dtype": "float32", "seconds_per_image": self.seconds}
        return report | _accuracy(self.exact, images)


def of_program(program: Program) -> Run:
    """What the model answers, computed by JAX without an export."""
    compiled, arrays = jax.jit(program), jax.device_put(program.arrays)
    return lambda pixels: jax.device_get(compiled(arrays, pixels))


def reference(original: Program, exported: Program, images: Images) -> Reference:
    """The answers that a program is compared with. `original` is the model in float32."""
    run = of_program(original)
    exact = rounded = batched(run, images.pixels, BATCH)
    if exported.stored == "int8":
        rounded = batched(of_program(exported), images.pixels, BATCH)
    if exported.stored == "bfloat16":
        # With float32 kernels: that storing them in bfloat16 loses nothing is for `judged` to see.
        in_bfloat16 = dataclasses.replace(original, options=exported.options)
        rounded = batched(of_program(in_bfloat16), images.pixels, BATCH)
    return Reference(exact=exact, rounded=rounded, seconds=speed(run, images.pixels, None))


def judged(
    found: Outputs, model: Reference, images: Images, *, stored: kernels.Kind, name: str
) -> dict[str, Any]:
    """The differences of a program's outputs from those of the model, and the bounds on them.

    A relative difference is the largest absolute one, divided by the largest value of the model.
    `same_class` is the share of images with the same class as the model gives, `top1` the share
    with the right one, if labels are known. Raises RunFailed if a bound is exceeded, or for NaN.

    A float32 program may differ by `BOUND`, and a bfloat16 program by `ROUNDED` times as much as
    the model in bfloat16: compilers round bfloat16 at different places. A program with int8 kernels
    may differ by `BOUND` from the model with these kernels, and from the float32 model in the
    classes of few photographs, `SAME_CLASS` and `LOST`, or by `INT8_BOUND` if there are none.
    """
    report: dict[str, Any] = {"outputs": _differences(found, model.exact)}
    if "logits" in found:
        best, expected = found["logits"].argmax(-1), model.exact["logits"].argmax(-1)
        report["same_class"] = float((best == expected).mean())
    report |= _accuracy(found, images)
    bound = BOUND
    if stored == "bfloat16":
        report["model_in_bfloat16"] = {"outputs": _differences(model.rounded, model.exact)}
        bound = max(ROUNDED * relative(report["model_in_bfloat16"]), BOUND)
    if stored == "int8":
        same = {"outputs": _differences(found, model.rounded), "bound": {"relative": BOUND}}
        _check(same, bound=BOUND, name=name, other="the model with int8 kernels")
        report["from_model_in_int8"] = same
        bound = math.inf if "logits" in found and not images.random else INT8_BOUND
    _check(report, bound=bound, name=name, other="the model")
    report["bound"] = {"relative": bound}
    if bound == math.inf:
        report["bound"] = _check_classes(report, _accuracy(model.exact, images), images, name=name)
    return report


def batched(run: Run, pixels: np.ndarray, batch: int) -> Outputs:
    """The outputs for all images, `batch` at once; the last ones are padded with black images."""
    found = []
    for first in range(0, len(pixels), batch):
        part = pixels[first : first + batch]
        outputs = run(_padded(part, batch))
        found.append({name: np.asarray(a)[: len(part)] for name, a in outputs.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def speed(run: Run, pixels: np.ndarray, batch: int | None) -> dict[str, Any]:
    """Seconds per image for each number of images at once: of the clock, and of all cores.

    A program for any number of images (batch None) is measured with 1 and with `BATCH`. They are
    medians of several calls after the first one, which compiles.
    """
    found = {}
    for number in (batch,) if batch else (1, BATCH):
        part = _padded(pixels[:number], number)
        calls: list[tuple[float, float]] = []
        run(part)
        start = time.perf_counter()
        while not calls or (time.perf_counter() - start < MEASURED and len(calls) < _CALLS):
            before = time.perf_counter(), time.process_time()
            run(part)
            calls.append((time.perf_counter() - before[0], time.process_time() - before[1]))
        clock, cores = (statistics.median(seconds) / number for seconds in zip(*calls, strict=True))
        found[str(number)] = {"clock": round(clock, 6), "cores": round(cores, 6)}
    return found


def relative(report: Mapping[str, Any]) -> float:
    """The largest relative difference of any output of a program; NaN if one is."""
    return float(np.max([of["relative"] for of in report["outputs"].values()]))


def _check(report: Mapping[str, Any], *, bound: float, name: str, other: str) -> None:
    """Raises RunFailed if a relative difference is NaN, infinite, or larger than the bound."""
    worst = relative(report)
    if not (worst <= bound and math.isfinite(worst)):
        raise RunFailed(
            f"{name} differs from {other} by {worst:.2g} (relative), and at most {bound:.2g} is"
            " allowed: nothing was written"
        )


def _check_classes(
    report: Mapping[str, Any], original: Mapping[str, float], images: Images, *, name: str
) -> dict[str, float]:
    """The smallest shares of images that are allowed in int8; one image may always differ.

    Raises RunFailed if a share of the report is smaller.
    """
    one = 1 / len(images.pixels)
    bound = {"same_class": min(SAME_CLASS, 1 - one)}
    if images.labels:
        bound["top1"] = original["top1"] - max(LOST, one)
    words = {"same_class": "the class of the model", "top1": "the right class"}
    for value, least in bound.items():
        if report[value] < least - 1e-9:  # shares are rounded
            raise RunFailed(
                f"{name} gives {words[value]} to {report[value]:.1%} of the images, and int8 needs"
                f" {least:.1%}: nothing was written"
            )
    return bound


def _accuracy(outputs: Outputs, images: Images) -> dict[str, float]:
    """The share of images with the right class, if labels are known."""
    if not images.labels or "logits" not in outputs:
        return {}
    return {"top1": float((outputs["logits"].argmax(-1) == np.asarray(images.labels)).mean())}


def _differences(ours: Outputs, theirs: Outputs) -> dict[str, dict[str, float]]:
    """Of each output, by name, from that of a reference."""
    report = {}
    for name, array in theirs.items():
        with np.errstate(invalid="ignore"):  # infinity minus infinity: `_check` refuses it
            absolute = float(np.abs(ours[name] - array).max())
        largest = max(float(np.abs(array).max()), SMALLEST)
        report[name] = {"absolute": absolute, "relative": absolute / largest}
    return report


def _padded(pixels: np.ndarray, batch: int) -> np.ndarray:
    return np.pad(pixels, [(0, batch - len(pixels))] + [(0, 0)] * (pixels.ndim - 1))
