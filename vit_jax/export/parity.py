"""Whether an exported program computes what the model computes: both are run on the same images."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.errors import RunFailed
from vit_jax.export.program import Outputs, Program

BATCH = 32  # images that the model sees at once
BOUND = 1e-5  # largest relative difference of a float32 program
SMALLEST = 1e-30  # value that a difference is divided by

Run = Callable[[np.ndarray], Outputs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """What both are run on."""

    pixels: np.ndarray  # uint8 (N, H, W, C)
    labels: tuple[int, ...] = ()  # the class of each image; () if unknown
    source: str  # where they are from, in words


def of_program(program: Program, images: Images) -> Outputs:
    """What the model answers, computed by JAX without an export."""
    compiled, arrays = jax.jit(program), jax.device_put(program.arrays)
    return batched(lambda pixels: jax.device_get(compiled(arrays, pixels)), images.pixels, BATCH)


def batched(run: Run, pixels: np.ndarray, batch: int) -> Outputs:
    """The outputs for all images, `batch` at once; the last ones are padded with black images."""
    found = []
    for first in range(0, len(pixels), batch):
        part = pixels[first : first + batch]
        padding = [(0, batch - len(part))] + [(0, 0)] * (pixels.ndim - 1)
        outputs = run(np.pad(part, padding))
        found.append({name: np.asarray(a)[: len(part)] for name, a in outputs.items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def compared(ours: Outputs, theirs: Outputs, labels: Sequence[int]) -> dict[str, Any]:
    """The differences of the outputs `ours` from those of a reference.

    A relative difference is the largest absolute one, divided by the largest value of the
    reference. `top1` is the share of images with the right class, if labels are known.
    """
    report: dict[str, Any] = {}
    for name, array in theirs.items():
        absolute = float(np.abs(ours[name] - array).max())
        relative = absolute / max(float(np.abs(array).max()), SMALLEST)
        report[name] = {"absolute": absolute, "relative": relative}
    if "logits" in theirs:
        best, expected = ours["logits"].argmax(-1), theirs["logits"].argmax(-1)
        report["top1_agreement"] = float((best == expected).mean())
        if labels:
            report["top1"] = float((best == np.asarray(labels)).mean())
    return report


def relative(report: Mapping[str, Any]) -> float:
    """The largest relative difference of any output; NaN if one is."""
    return float(np.max([v["relative"] for v in report.values() if isinstance(v, dict)]))


def check(report: Mapping[str, Any], *, bound: float, name: str) -> None:
    """Raises RunFailed if a program differs from the model by more than the bound, or is NaN."""
    worst = relative(report)
    if not worst <= bound:
        raise RunFailed(
            f"{name} differs from the model by {worst:.2g} (relative), and at most {bound:.2g} is"
            " allowed: nothing was written"
        )
