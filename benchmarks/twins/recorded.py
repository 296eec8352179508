"""Short trajectories of the peers, kept as numbers, which our side must repeat in the tests."""

import json
import pathlib
from typing import Any

import numpy as np

from benchmarks.twins.contract import Twin
from benchmarks.twins.lockstep import open_peer
from benchmarks.twins.ours import Ours, Run, renamed
from benchmarks.twins.peer import ROOT, Answer, Peers

FOLDER = ROOT / "tests/twins"
STEPS = 20


def record(name: str, twin: Twin, run: Run, peers: Peers) -> None:
    """Writes the trajectory of the peer of a whole run of `STEPS` steps."""
    plan, answers = run.design(), []
    draws = twin.draws(plan, run.frozen(plan))
    with open_peer(twin, plan, peers) as peer:
        for step, batch in enumerate(run.batches(plan)):
            peer.send({**batch, **draws(batch, step)})
            answers.append(peer.receive())
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"versions": peer.versions, **figures(answers)}, indent=1)
    _path(name).write_text(content + "\n")


def ours(twin: Twin, run: Run) -> dict[str, Any]:
    """The figures of our side, of the same run."""
    side = Ours(run)
    answers = []
    for batch in run.batches(side.plan):
        loss, norm = side.step(batch)
        answers.append(Answer(loss, norm, renamed(side.plan, twin.layout, side.params())))
    return figures(answers)


def figures(answers: list[Answer]) -> dict[str, Any]:
    """The losses and the norms of the gradient, and the norm of each parameter at the end."""
    last = answers[-1].params
    return {
        "losses": [_rounded(answer.loss) for answer in answers],
        "grad_norms": [_rounded(answer.grad_norm) for answer in answers],
        "param_norms": {name: _rounded(np.linalg.norm(last[name])) for name in sorted(last)},
    }


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_path(name).read_text())
    return found


def _path(name: str) -> pathlib.Path:
    return FOLDER / f"{name}.json"


def _rounded(value: Any) -> float:
    return float(f"{value:.8g}")
