"""Pretrains on all images of Fashion-MNIST without labels, then trains on 10% of the labels.

    python benchmarks/pretraining.py --out results.json [--seeds 3] [--share 1.0] \
        [--starts scratch masked_patch mae beit]

Each start is a recipe: pretraining with its `small` variant, then fine-tuning of all parameters on
200 images of each class. `scratch` trains on the same images from a new model. All runs of the
second part have the same budget and the same rates, of which the best is reported for each start.
`--share` shortens all runs. Every run is the command `train` in a process of its own; a run that is
complete is not repeated.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RATES = ("5e-4", "2e-3")
MEAN, STD = "0.286,0.286,0.286", "0.353,0.353,0.353"  # as in the recipes of pretraining
EPOCHS, PER_CLASS = 60, 200  # of the second part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--starts", nargs="+", default=["scratch", "masked_patch", "mae"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="share of the lengths of all runs")
    flags = parser.parse_args()
    rows = []
    for seed in range(flags.seeds):
        for start in flags.starts:
            before = pretrain(start, seed, flags)
            rows += [finetune(start, before, rate, seed, flags) for rate in RATES]
            (flags.out / "results.json").write_text(json.dumps(rows, indent=1))
    print(report(rows))


def pretrain(start: str, seed: int, flags: argparse.Namespace) -> pathlib.Path | None:
    """The folder of the pretrained run; None for `scratch`."""
    if start == "scratch":
        return None
    workdir = flags.out / f"{start}-{seed}"
    recipe = f"--config={ROOT / 'configs' / start}.py:small"
    shorter = () if flags.share == 1 else (f"--config.total.epochs={20 * flags.share}",)
    run(workdir, recipe, f"--config.seed={seed}", *shorter)
    return workdir


def finetune(
    start: str, before: pathlib.Path | None, rate: str, seed: int, flags: argparse.Namespace
) -> dict[str, Any]:
    """Trains on some labels; the row of the results."""
    workdir = flags.out / f"{start}-{seed}-{rate}"
    model = ("name=Ti/4", "width=96", "depth=4", "mlp_dim=384", "num_heads=3", "pool=gap")
    begin = [f"--config.init_from={before}"] if before else []
    begin += [f"--config.model.{field}" for field in (model[-1:] if before else model)]
    found = run(
        workdir,
        f"--config={ROOT / 'configs/finetune.py'}",
        *begin,
        "--config.image_size=28,28",
        f"--config.total.epochs={EPOCHS * flags.share}",
        f"--config.data.per_class={PER_CLASS}",
        "--config.data.shift=1",
        "--config.model.remat=none",
        "--config.evaluate_every.percent=100",
        f"--config.optimizer.learning_rate={rate}",
        f"--config.seed={seed}",
        *(() if before else (f"--config.data.mean={MEAN}", f"--config.data.std={STD}")),
    )
    return {"start": start, "seed": seed, "rate": rate, "top1": found["eval_top1"]}


def run(workdir: pathlib.Path, *arguments: str) -> dict[str, float]:
    """Trains in `workdir`, or resumes there; the last line of its metrics."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "vit_jax", "train", f"--workdir={workdir}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{workdir}: {done.stderr.splitlines()[-1]}")
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    print(f"{workdir.name}: {time.monotonic() - begin:.0f} s, {last}", flush=True)
    return last


def report(rows: list[dict[str, Any]]) -> str:
    """A table: the mean top-1 and the smallest and largest one, for each start and rate."""
    lines = ["| start | rate | runs | top-1: mean (smallest to largest) |", "|---|---|---|---|"]
    for start, rate in dict.fromkeys((row["start"], row["rate"]) for row in rows):
        found = [100 * row["top1"] for row in rows if (row["start"], row["rate"]) == (start, rate)]
        spread = f"{statistics.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        lines.append(f"| {start} | {rate} | {len(found)} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
