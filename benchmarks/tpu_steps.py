"""Compiles full-size steps for TPUs and compares them with the figures in tpu_steps.json.

python benchmarks/tpu_steps.py [NAME ...] [--list] [--write]

Without names it compiles all steps, which takes half a minute to some minutes of a core for each.
It prints both values of every figure that differs by more than 3%, and ends with exit code 1 then.
`--write` keeps what it found instead. It needs the TPU compiler: pip install vit_jax[tpu].
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import sys
from typing import Any

from vit_jax.config import Config, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.errors import RunFailed
from vit_jax.planning import changes, compiling, plan, topologies
from vit_jax.planning.job import Job, versions

KEPT = pathlib.Path(__file__).with_suffix(".json")
MOST = 0.03  # relative difference of a figure
FEW_BYTES = 1e6  # collectives that move less are not compared
IMAGENET = DataFacts(train_size=1_281_167, num_classes=1000)
_GAP = {"model.class_token": False, "model.pool": "gap"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A step: bfloat16, AdamW, mixup, images of 224 pixels, and what the model leaves to "auto"."""

    model: str
    images: int  # of a chip
    topology: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


def _mesh(fsdp: int, tensor: int = 1) -> dict[str, Any]:
    return {"mesh.data": -1, "mesh.fsdp": fsdp, "mesh.tensor": tensor}


_SCANNED = {"model.unroll": 1}
_SLICES = _mesh(16) | _SCANNED  # what crosses between slices does not depend on it
_22B = {
    **{"model.width": 6144, "model.depth": 48, "model.mlp_dim": 24_576, "model.num_heads": 48},
    **{"model.qk_norm": True},
}
ENTRIES = {
    "B/16": Entry(model="B/16", images=64, topology="v5e-8"),
    "B/16 scanned": Entry(model="B/16", images=64, topology="v5e-8", fields=_SCANNED),
    "B/16, 128": Entry(model="B/16", images=128, topology="v5e-8"),
    "B/16, 128 scanned": Entry(model="B/16", images=128, topology="v5e-8", fields=_SCANNED),
    "S/16, 128 scanned": Entry(model="S/16", images=128, topology="v5e-8", fields=_SCANNED),
    "B/16 fsdp 8": Entry(model="B/16", images=64, topology="v5e-8", fields=_mesh(8)),
    "H/14 pooled scanned": Entry(
        model="H/14", images=32, topology="v5p-128", fields=_GAP | _SCANNED
    ),
    "H/14 pooled": Entry(model="H/14", images=32, topology="v5p-128", fields=_GAP),
    "H/14 token": Entry(model="H/14", images=32, topology="v5p-128"),
    "H/14 token scanned": Entry(model="H/14", images=32, topology="v5p-128", fields=_SCANNED),
    "G/14, 32": Entry(model="G/14", images=32, topology="v5p-512", fields=_GAP | _mesh(16)),
    "G/14, 128": Entry(model="G/14", images=128, topology="v5p-512", fields=_GAP | _mesh(16)),
    "L/16 fsdp 64": Entry(model="L/16", images=32, topology="v5e-64", fields=_mesh(64)),
    "22B": Entry(
        model="H/14", images=16, topology="v5p-512", fields=_22B | _GAP | _mesh(64, tensor=4)
    ),
    "two slices v5e": Entry(model="B/16", images=64, topology="2xv5e-256", fields=_SLICES),
    "four slices v5e": Entry(model="B/16", images=64, topology="4xv5e-256", fields=_SLICES),
    "two slices v5p": Entry(model="L/16", images=32, topology="2xv5p-1024", fields=_SLICES),
    "four slices v5p": Entry(model="L/16", images=32, topology="4xv5p-1024", fields=_SLICES),
}


def main() -> int:
    """Compares the steps, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", help="names of steps")
    parser.add_argument("--list", action="store_true", help="print the names of the steps")
    parser.add_argument("--write", action="store_true", help="keep the figures that are found")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ENTRIES):
        parser.error(f"no such step: {', '.join(sorted(unknown))}; --list has the names")
    if options.list:
        print("\n".join(ENTRIES))
        return 0
    kept, wrong = json.loads(KEPT.read_text()), []
    with compiling.Compiler(limit=3600) as compiler:
        for name in options.names or ENTRIES:
            try:
                found = figures(compiler, ENTRIES[name])
            except (ValueError, RunFailed) as failure:
                wrong.append(f"{name}: {failure}")
                print(wrong[-1], flush=True)
                continue
            print(f"{name}: {json.dumps(found)}", flush=True)
            if options.write:
                kept[name] = {"made": _made(), **found}
                KEPT.write_text(json.dumps(kept, indent=1) + "\n")
                continue
            differing = differences(found, kept.get(name, {}))
            wrong += [f"{name}: {text}" for text in differing]
            print("\n".join(f"  {text}" for text in differing or ["as kept"]), flush=True)
    return 1 if wrong else 0


def config_of(entry: Entry) -> Config:
    """The config of a step on all devices of its topology."""
    base = default_config()
    base.model.name = entry.model
    base.model.dtype = "bfloat16"
    base.image_size = (224, 224)
    base.augment = ("flip", "value_range", {"name": "mixup", "alpha": 0.2})
    base.optimizer.moment_dtype = "bfloat16"
    base.optimizer.weight_decay = 0.1
    base.schedule.warmup.steps = 10_000
    chips = topologies.parse(entry.topology).chips
    fields = {"batch_size": entry.images * chips, "total": {"steps": 100_000}, **entry.fields}
    return changes.changed(resolve(base), fields)


def figures(compiler: compiling.Compiler, entry: Entry) -> dict[str, Any]:
    """The figures of a step that are compared; gigabytes that collectives move by kind and axes.

    Raises ValueError if it does not fit.
    """
    topology = topologies.parse(entry.topology)
    job = Job(config=config_of(entry), facts=IMAGENET, topology=topology)
    made = plan.make(compiler, job)
    if made.timeline is None:
        raise ValueError(f"needs {made.result.needed / 2**30:.2f} GiB per device")
    moved: dict[str, float] = {}
    for traffic, total in made.timeline.collectives.items():
        key = f"GB {traffic.kind} {traffic.axes}"
        moved[key] = moved.get(key, 0.0) + total.bytes / 1e9
    return {
        "ms": round(made.seconds * 1e3, 2),
        "MFU": round(made.mfu, 4),
        "GiB": round(made.result.needed / 2**30, 3),
        "compiled FLOPs": round(made.flops_ratio, 4),
        **{key: round(size, 4) for key, size in sorted(moved.items()) if size * 1e9 > FEW_BYTES},
        "remat": made.step.remat,
        "unroll": made.step.unroll,
    }


def differences(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """A line with both values for each figure that differs."""
    if not kept:
        return ["no figures are kept: use --write"]
    lines = []
    for name in dict.fromkeys((*found, *kept)):
        new, old = found.get(name, 0.0), kept.get(name, 0.0)
        if name == "made":
            continue
        if isinstance(new, str) or isinstance(old, str):
            same = new == old
        else:
            same = abs(new - old) <= MOST * abs(old)
        if not same:
            lines.append(f"{name} is {new}, and {old} is kept ({kept['made']})")
    return lines


def _made() -> str:
    return ", ".join(
        (datetime.date.today().isoformat(), *(f"{n} {v}" for n, v in versions().items()))
    )


if __name__ == "__main__":
    sys.exit(main())
