"""Both sides of a twin in lockstep, and whether they part by more than rounding.

Each side trains twice: on the batches, and on the same batches with their rows in another order.
What these two differ by is the self-gap of the side. It is pure rounding, which training amplifies.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.twins.contract import Batch, Twin
from benchmarks.twins.initial import initial
from benchmarks.twins.ours import Ours, Run, renamed, symmetric_rows
from benchmarks.twins.peer import Answer, Peer, Peers
from vit_jax.training.design import Design

QUANTITIES = ("loss", "grad_norm", "params")
FACTOR = 10.0  # parity: the gap is at most so many self-gaps
CHAOS = 1e-3  # where a self-gap passes this, the comparison of the quantity ends
FLOOR = 2.0**-23  # the spacing of float32 at 1: no self-gap counts as smaller


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The figures of every step, float64 (steps,). Gaps are relative."""

    losses: Mapping[str, np.ndarray]  # by side: ours, peer
    grad_norms: Mapping[str, np.ndarray]  # by side, before clipping
    gaps: Mapping[str, np.ndarray]  # by quantity: between the sides
    self_gaps: Mapping[str, Mapping[str, np.ndarray]]  # by side and quantity

    def allowance(self, quantity: str) -> np.ndarray:
        """The largest self-gap of either side so far, at least `FLOOR`."""
        both = np.maximum(*(self.self_gaps[side][quantity] for side in ("ours", "peer")))
        return np.maximum.accumulate(np.maximum(both, FLOOR))


class Four(NamedTuple):
    """What the four runs of a twin report after a step."""

    ours: Answer
    ours_permuted: Answer
    peer: Answer
    peer_permuted: Answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """How one quantity compares, over the steps until its self-gap passes `CHAOS`."""

    steps: int  # that are compared
    worst_gap: float
    worst_self_gap: float
    worst_ratio: float  # of the gap to the self-gap so far
    first_over: int | None  # the first step where the ratio is above `FACTOR`

    @property
    def holds(self) -> bool:
        return self.steps > 0 and self.first_over is None


def judge(found: Trajectory, quantity: str) -> Verdict:
    gap, allowance = found.gaps[quantity], found.allowance(quantity)
    chaotic = allowance > CHAOS
    steps = int(chaotic.argmax()) if chaotic.any() else len(gap)
    ratio = gap[:steps] / allowance[:steps]
    over = ~(ratio <= FACTOR)  # true for NaN, too
    return Verdict(
        steps=steps,
        worst_gap=float(gap[:steps].max(initial=0)),
        worst_self_gap=float(allowance[:steps].max(initial=0)),
        worst_ratio=float(ratio.max(initial=0)),
        first_over=int(over.argmax()) if over.any() else None,
    )


class Lockstep:
    """Four runs of a twin: each side, straight and with permuted rows. A context manager."""

    def __init__(self, twin: Twin, run: Run, peers: Peers) -> None:
        self._layout, self._run = twin.layout, run
        self._rows = symmetric_rows(run.config.batch_size)
        self._ours = Ours(run), Ours(run, rows=self._rows)
        plan = self._ours[0].plan
        self._draws = twin.draws(plan, run.frozen(plan))
        with contextlib.ExitStack() as stack:
            self._peers = [stack.enter_context(open_peer(twin, plan, peers)) for _ in range(2)]
            self._stack = stack.pop_all()
        self.versions = self._peers[0].versions

    def __enter__(self) -> "Lockstep":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def steps(self, stop: int) -> Iterator[Four]:
        """What all report after each of the first `stop` steps."""
        plan = self._ours[0].plan
        for step, batch in zip(range(stop), self._run.batches(plan), strict=False):
            whole = {**batch, **self._draws(batch, step)}
            self._peers[0].send(whole)
            self._peers[1].send(in_order(whole, self._rows))
            batches = batch, in_order(batch, self._rows)
            ours = [self._answer(side, b) for side, b in zip(self._ours, batches, strict=True)]
            yield Four(*ours, *(peer.receive() for peer in self._peers))

    def _answer(self, side: Ours, batch: Batch) -> Answer:
        loss, norm = side.step(batch)
        return Answer(loss, norm, renamed(side.plan, self._layout, side.params()))


def open_peer(twin: Twin, plan: Design, peers: Peers) -> Peer:
    """A run of the peer that starts from the initial values of ours."""
    first = renamed(plan, twin.layout, initial(plan.options, seed=plan.config.seed))
    return Peer(twin, peers, settings=twin.settings(plan), params=first)


def train(lockstep: Lockstep, *, stop: int) -> Trajectory:
    """Trains both sides for `stop` steps."""
    gaps: dict[str, list[dict[str, float]]] = {"gap": [], "ours": [], "peer": []}
    figures: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for step, four in enumerate(lockstep.steps(stop)):
        gaps["gap"].append(gap_of(four.ours, four.peer))
        gaps["ours"].append(gap_of(four.ours, four.ours_permuted))
        gaps["peer"].append(gap_of(four.peer, four.peer_permuted))
        for side, answer in (("ours", four.ours), ("peer", four.peer)):
            figures[side].append((answer.loss, answer.grad_norm))
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {four.ours.loss:.5f}, {gaps['gap'][-1]}", flush=True)
    by_quantity = {
        pair: {name: np.asarray([gap[name] for gap in found]) for name in QUANTITIES}
        for pair, found in gaps.items()
    }
    return Trajectory(
        losses={side: np.asarray(values)[:, 0] for side, values in figures.items()},
        grad_norms={side: np.asarray(values)[:, 1] for side, values in figures.items()},
        gaps=by_quantity["gap"],
        self_gaps={side: by_quantity[side] for side in figures},
    )


def in_order(batch: Batch, rows: np.ndarray) -> dict[str, np.ndarray]:
    """A batch, and its draws by row, with the rows in this order."""
    return {name: array[rows] if array.ndim else array for name, array in batch.items()}


def gap_of(one: Answer, other: Answer) -> dict[str, float]:
    """Relative differences of the loss, the norm of the gradient and all parameters together."""
    assert one.params.keys() == other.params.keys(), one.params.keys() ^ other.params.keys()
    apart = {name: one.params[name].astype(np.float64) - other.params[name] for name in one.params}
    return {
        "loss": abs(one.loss - other.loss) / abs(other.loss),
        "grad_norm": abs(one.grad_norm - other.grad_norm) / abs(other.grad_norm),
        "params": norm(apart) / norm(other.params),
    }


def norm(params: Mapping[str, np.ndarray]) -> float:
    return float(np.sqrt(sum(np.square(a.astype(np.float64)).sum() for a in params.values())))
