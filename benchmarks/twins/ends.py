"""What both sides reach at the end of whole runs that differ in their seed.

Where rounding has grown, single parameters no longer say whether two trainings are equal. The
held-out metrics of their last models do, beside the spread that another seed makes. The models of
both sides are measured by this project's evaluation.
"""

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from benchmarks.twins.contract import Batch, Twin
from benchmarks.twins.lockstep import open_peer
from benchmarks.twins.ours import Ours, Run, restored
from benchmarks.twins.peer import Answer, Peer, Peers
from vit_jax.data import opening
from vit_jax.data.bad_images import BadImages
from vit_jax.parallel import rules
from vit_jax.training import measures

SIDES = ("ours", "peer")
HEAD = (
    "| twin | metric | ours: mean (smallest to largest) | the same of the peer"
    " | largest difference of a seed | spread of the seeds |\n|---|---|---|---|---|---|"
)
_LEFT_OUT = ("count", "ece")

Ends = Mapping[str, Sequence[Mapping[str, float]]]  # by side: the metrics of each seed


def find(twin: Twin, run: Run, peers: Peers, *, seeds: int) -> Ends:
    """Trains both sides to the end with each seed, which decides initial values and batches.

    The random draws of the steps, such as masks, are the same for all seeds.
    """
    found: dict[str, list[Mapping[str, float]]] = {side: [] for side in SIDES}
    for seed in range(seeds):
        seeded = dataclasses.replace(run, config=dataclasses.replace(run.config, seed=seed))
        for side, metrics in _of_seed(twin, seeded, peers).items():
            print(f"seed {seed}, {side}: {metrics}", flush=True)
            found[side].append(metrics)
    return found


def _of_seed(twin: Twin, run: Run, peers: Peers) -> dict[str, Mapping[str, float]]:
    ours = Ours(run)
    draws = twin.draws(ours.plan, run.frozen(ours.plan))
    with open_peer(twin, ours.plan, peers) as peer:
        for step, batch in enumerate(run.batches(ours.plan)):
            answer = _step(ours, peer, batch, draws(batch, step))
    theirs = restored(ours.plan, twin.layout, answer.params)
    return {side: _measured(run, p) for side, p in zip(SIDES, (ours.params(), theirs), strict=True)}


def _step(ours: Ours, peer: Peer, batch: Batch, draws: Batch) -> Answer:
    peer.send({**batch, **draws})
    ours.step(batch)
    return peer.receive()


def _measured(run: Run, params: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The held-out metrics of a model with these parameters."""
    plan = run.design()
    held_out = opening.open_eval(run.config.data)
    bad = BadImages(size=len(held_out), max_bad=0.0, remedy="repair them")
    with jax.set_mesh(plan.mesh):
        evaluations = measures.of_run(plan, train=run.source, held_out=held_out, bad=bad)
        nested = traverse_util.unflatten_dict(dict(params), sep="/")
        placed = jax.device_put(nested, rules.tree_shardings(nested, plan.mesh))
        metrics = evaluations({"params": placed}, run.frozen(plan))
    return {name: value for name, value in metrics.items() if name not in _LEFT_OUT}


def write(path: pathlib.Path, found: Ends, facts: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "ends": found}, indent=1) + "\n")


def read(path: pathlib.Path) -> Ends:
    ends: Ends = json.loads(path.read_text())["ends"]
    return ends


def rows(name: str, found: Ends) -> list[str]:
    """The twin's rows of a Markdown table, one for each metric."""
    return [_row(name, metric, found) for metric in found["ours"][0]]


def _row(name: str, metric: str, found: Ends) -> str:
    ours, peer = ([end[metric] for end in found[side]] for side in SIDES)
    apart = max(abs(one - other) for one, other in zip(ours, peer, strict=True))
    spread = max(max(side) - min(side) for side in (ours, peer))
    cells = [name, metric, *map(_shown, (ours, peer)), f"{apart:.2g}", f"{spread:.2g}"]
    return f"| {' | '.join(cells)} |"


def _shown(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
