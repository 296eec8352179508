"""Trains the models of a study with several seeds, and prints a table of the results.

    python benchmarks/studies.py STUDY --out DIR [--data DIR] [--seeds 0 1 2] [--parallel 4] \
        [--seconds 600] [--share 1.0] [--rows scratch mae] [--fields model.dtype=bfloat16] \
        [--in-memory]

A study is a function of this file that returns its runs. Every run is the command `train` in a
process of its own; `--parallel` of them share the device. A run may start from another one, or use
it as tokenizer or teacher. A complete run is not repeated. With `--seconds`, later runs are cut off
or left out, and their evaluations up to then count. `--share` shortens the runs of each seed.
`--rows` selects rows by how their names begin, and the runs that they use. With `--in-memory`, the
images of `--data` are decoded once (`in_memory.py`).
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a study; `uses` names the earlier runs whose workdirs are values of its fields."""

    name: str  # begins with the name of its row; rates follow
    recipe: str  # file of configs/ without .py, and a variant
    epochs: float  # with --share 1
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    uses: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: bool = True  # whether the data are the folder of --data
    once: bool = False  # trained in full with the lowest seed, and used by the runs of all seeds


def cifar10() -> list[Run]:
    """Small ViTs against a ResNet-18, at a small and a larger rate."""
    models, rates = ("patch4", "patch2", "resnet18"), ("1e-4", "1e-3")
    return [
        Run(f"{model} {rate}", f"cifar10:{model}", 20, {"optimizer.learning_rate": rate})
        for rate, model in itertools.product(rates, models)
    ]


def cifar10_large() -> list[Run]:
    """The same images at 224 pixels."""
    fields = {"optimizer.learning_rate": "1e-4", "evaluate_every.epochs": 2}
    models = ("patch16", "patch32")
    return [Run(f"{model} 1e-4", f"cifar10:{model}", 20, fields) for model in models]


def cifar10_long() -> list[Run]:
    """The ViT of `cifar10_peer.py` for 200 epochs, with its RandAugment and without."""
    plain = {"augment": "('flip','value_range')"}
    return [
        Run("long, no RandAugment", "cifar10:long", 200, plain | {"evaluate_every.epochs": 20}),
        Run("long", "cifar10:long", 200, {"evaluate_every.epochs": 20}),
    ]


def muon() -> list[Run]:
    """Muon against AdamW on CIFAR-10, with the same number of rates."""
    common = {
        "batch_size": 512,
        "model.depth": 6,
        "model.unroll": 6,
        "evaluate_every.epochs": 1,
        "optimizer.weight_decay": 0.05,
        "optimizer.clip_norm": 1.0,
        "schedule.decay": "cosine",
        "schedule.warmup.percent": 10,
    }
    rates = {"adamw": ("5e-4", "1e-3", "2e-3"), "muon": ("5e-4", "1e-3", "2e-3")}
    return [
        Run(
            f"{name} {rate}",
            "cifar10:patch4",
            5,
            {"optimizer.name": name, **common, "optimizer.learning_rate": rate},
        )
        for name, tried in rates.items()
        for rate in tried
    ]


# The fine-tuning of `pretraining` and the models of `distillation`: the embedded Fashion-MNIST.
_FASHION = {
    "image_size": "28,28",
    "data.shift": 1,
    "data.mean": "0.286,0.286,0.286",  # as in the recipes of pretraining
    "data.std": "0.353,0.353,0.353",
    "evaluate_every.percent": 100,
}
_SMALL_VIT = {"name": "Ti/4", "width": 96, "depth": 4, "mlp_dim": 384, "num_heads": 3}


def pretraining() -> list[Run]:
    """Pretraining on all images without labels, then training on 200 images of each class."""
    begin = {"masked_patch": {}, "mae": {}, "beit": {"objective.tokenizer": "dvae"}}
    before = [Run("dvae", "dvae:small", 7.5, data=False, once=True)]
    before += [
        Run(start, f"{start}:small", 20, uses=uses, data=False) for start, uses in begin.items()
    ]
    after = []
    for start, rate in itertools.product(("scratch", *begin), ("5e-4", "2e-3")):
        fields = _FASHION | {"data.per_class": 200, "model.pool": "gap", "model.remat": "none"}
        if start == "scratch":
            fields |= {f"model.{name}": value for name, value in _SMALL_VIT.items()}
        fields["optimizer.learning_rate"] = rate
        uses = {} if start == "scratch" else {"init_from": start}
        after.append(Run(f"{start} {rate}", "finetune", 60, fields, uses, data=False))
    return before + after


def distillation() -> list[Run]:
    """A ViT alone, with a second head on a token of its own, and taught by a BiT through it."""
    common = _FASHION | {"optimizer.learning_rate": "1e-3"}
    bit = {"model.name": "R50x1", "model.stem.num_layers": "1,1,1", "model.stem.root_width": 32}
    alone = common | {"model.remat": "none"}
    alone |= {f"model.{name}": value for name, value in _SMALL_VIT.items()}
    two_heads = alone | {"model.name": "DeiT-distilled-Ti/4", "objective.name": "distillation"}
    uses = {"objective.teacher": "teacher"}
    return [
        Run("teacher", "finetune", 10, common | bit, data=False),
        Run("alone", "finetune", 10, alone, data=False),
        *(
            Run(name, "finetune", 10, two_heads | {f"objective.{field}": value}, uses, data=False)
            for name, field, value in (
                ("second head, no teacher", "alpha", 0.0),
                ("hard", "distillation", "hard"),
                ("soft", "distillation", "soft"),
            )
        ),
    ]


def positions() -> list[Run]:
    """Position embeddings: which ones, and where they are added."""
    kinds = ["none", "relative", "sincos2d"]
    pairs = [(kind, "input") for kind in kinds]
    places = ("input", "every_block", "every_block_shared")
    pairs += list(itertools.product(("learned_1d", "learned_2d"), places))
    return [
        Run(
            f"{kind} {place}",
            "ablation:token",
            30,
            {"model.position": kind, "model.position_at": place},
        )
        for kind, place in pairs
    ]


def architectures() -> list[Run]:
    """Class token against average pooling, and plain ViT against hybrid against BiT, at rates."""
    return [
        Run(f"{name} {rate}", f"ablation:{name}", 30, {"optimizer.learning_rate": rate})
        for rate in ("3e-4", "1e-3", "3e-3")
        for name in ("token", "gap", "hybrid", "bit")
    ]


STUDIES: dict[str, Callable[[], list[Run]]] = {
    study.__name__: study
    for study in (
        *(cifar10, cifar10_large, cifar10_long, muon),
        *(pretraining, distillation, positions, architectures),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--data", help="folder of images, if the study needs one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--share", type=float, default=1.0, help="share of the lengths of the runs")
    parser.add_argument("--rows", nargs="+", default=[""], help="beginnings of names of runs")
    parser.add_argument("--in-memory", action="store_true", help="decode the images once")
    parser.add_argument("--fields", nargs="+", default=[], help="fields of the config, as a.b=c")
    flags = parser.parse_args()
    end = time.monotonic() + flags.seconds
    flags.out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    with concurrent.futures.ThreadPoolExecutor(flags.parallel) as pool:
        for done in concurrent.futures.as_completed(_submit(pool, flags, end)):
            results += done.result()
            (flags.out / "results.json").write_text(json.dumps(results, indent=1))
    print(report(results))


def _submit(
    pool: concurrent.futures.Executor, flags: argparse.Namespace, end: float
) -> list[concurrent.futures.Future[list[dict[str, Any]]]]:
    """Submits all runs. Those that others use come first, so that waiting cannot block them."""
    runs = _selected(STUDIES[flags.study](), tuple(flags.rows))
    submitted: dict[tuple[str, int], concurrent.futures.Future[list[dict[str, Any]]]] = {}
    pairs = itertools.product(runs, flags.seeds)
    for run, seed in sorted(pairs, key=lambda pair: (_depth(pair[0], runs), pair[1])):
        if (first := _seed(run, seed, flags)) != seed:
            submitted[run.name, seed] = submitted[run.name, first]
            continue
        before = [submitted[name, seed] for name in run.uses.values()]
        submitted[run.name, seed] = pool.submit(train, run, seed, before, flags, end)
    return list(dict.fromkeys(submitted.values()))


def _selected(runs: list[Run], rows: tuple[str, ...]) -> list[Run]:
    """The runs whose names begin like one of `rows`, and those that they use."""
    wanted: set[str] = set()
    for run in reversed(runs):  # a run uses earlier ones
        if run.name.startswith(rows) or run.name in wanted:
            wanted |= {run.name, *run.uses.values()}
    return [run for run in runs if run.name in wanted]


def _depth(run: Run, runs: list[Run]) -> int:
    """The number of runs before this one that must be complete, one after another."""
    used = [other for other in runs if other.name in run.uses.values()]
    return 1 + max(_depth(other, runs) for other in used) if used else 0


def train(
    run: Run,
    seed: int,
    before: list[concurrent.futures.Future[list[dict[str, Any]]]],
    flags: argparse.Namespace,
    end: float,
) -> list[dict[str, Any]]:
    """Trains until `end` at the latest, and returns a row for each evaluation of the run."""
    complete = [done.result() for done in before]
    if time.monotonic() > end or not all(complete):
        return []
    workdir = _workdir(flags.out, run.name, seed)
    fields = dict(run.fields) | {"seed": seed}
    runs = {other.name: other for other in STUDIES[flags.study]()}
    for field, name in run.uses.items():
        fields[field] = _workdir(flags.out, name, _seed(runs[name], seed, flags))
    if run.data:
        fields["data.path"] = flags.data
    fields["total.epochs"] = run.epochs * (1 if run.once else flags.share)
    recipe, _, variant = run.recipe.partition(":")
    program = ["-m", "vit_jax", "train"]
    if flags.in_memory:
        program = [str(pathlib.Path(__file__).with_name("in_memory.py"))]
    command = [sys.executable, *program, f"--workdir={workdir}"]
    command.append(f"--config={ROOT / 'configs' / recipe}.py" + (variant and f":{variant}"))
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    command += [f"--config.{field}" for field in flags.fields]
    begin = time.monotonic()
    ended = _run(command, workdir.with_suffix(".log"), end)
    print(f"{workdir.name}: {time.monotonic() - begin:.0f} s, {ended}", flush=True)
    metrics = workdir / "metrics.jsonl"
    lines = map(json.loads, metrics.read_text().splitlines()) if metrics.exists() else ()
    row = {"run": run.name, "seed": seed}
    return [row | line for line in lines if any(name.startswith("eval_") for name in line)]


def _run(command: list[str], log: pathlib.Path, end: float) -> str:
    """Runs a command until `end` at the latest; the exit code and the last line of its output."""
    paths = os.pathsep.join((str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])))
    with log.open("w") as file:
        try:
            code = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=max(end - time.monotonic(), 1) if end != float("inf") else None,
                env=os.environ | {"PYTHONPATH": paths},
            ).returncode
            ended = f"exit code {code}"
        except subprocess.TimeoutExpired:
            ended = "out of time"
    return f"{ended}: {''.join(log.read_text(errors='replace').splitlines()[-1:])[:200]}"


def _seed(run: Run, seed: int, flags: argparse.Namespace) -> int:
    """The seed with which a run is trained for the runs with this seed."""
    return min(flags.seeds) if run.once else seed


def _workdir(out: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    return out / f"{name.replace(' ', '-')}-seed{seed}"


def report(results: list[dict[str, Any]]) -> str:
    """A table: the mean and the smallest and largest measure, for each run and evaluation."""
    lines = [
        "| run | step | seeds | measure | mean (smallest to largest) |",
        "|---|---|---|---|---|",
    ]
    key = lambda row: (row["run"], row["step"])  # noqa: E731
    for (run, step), group in itertools.groupby(sorted(results, key=key), key=key):
        rows = list(group)
        name = next((n for n in ("eval_top1", "eval_loss") if n in rows[0]), "")
        if name:
            factor = 100 if name == "eval_top1" else 1
            found = [factor * row[name] for row in rows]
            spread = f"{statistics.mean(found):.4g} ({min(found):.4g} to {max(found):.4g})"
            lines.append(f"| {run} | {step} | {len(found)} | {name} | {spread} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
