"""The time of a step: a walk along the schedule of the compiled program.

The core executes one instruction after another; collectives and copies between memories run beside
it where the compiler starts them early, and the core waits when it needs their results. The body of
a loop counts as often as it runs.
"""

import dataclasses
import functools
import re
from collections import defaultdict
from typing import NamedTuple

from vit_jax.planning import collectives, hlo
from vit_jax.planning.collectives import Network
from vit_jax.planning.costs import REACHED, Cost, Costs
from vit_jax.planning.hlo import Computation, Instruction, Program

_START_OF_COPY = 0.3e-6  # seconds
_ROUNDS = 20  # of Threefry
_SMALL = 4  # bytes: a counter or a flag of an asynchronous operation, not data


class Traffic(NamedTuple):
    """Which collectives belong together in a summary."""

    kind: str
    axes: str  # mesh axes, such as data+fsdp
    devices: int  # of a group
    link: str  # inside a slice ICI or NVLink, between slices DCN
    early: bool  # whether it runs beside the core


@dataclasses.dataclass
class Sum:
    """Sums over a step, for a device."""

    count: int = 0
    bytes: float = 0.0
    seconds: float = 0.0

    def add(self, *, times: int, size: float, seconds: float) -> None:
        self.count += times
        self.bytes += times * size
        self.seconds += times * seconds


@dataclasses.dataclass
class Item:
    """An instruction of the step, with the sum over its executions."""

    instruction: Instruction
    times: int
    seconds: float
    flops: float
    bytes: float


@dataclasses.dataclass
class Timeline:
    """A step on one device; all times are in seconds."""

    seconds: float
    matmul: float  # in instructions with matrix products
    drawing: float  # the part of it in instructions that draw random numbers too
    other: float  # in all other instructions of the core
    exposed: float  # the core waits for collectives inside a slice
    exposed_between: float  # the core waits for other slices
    waiting: float  # the core waits for copies between memories
    flops: float  # of matrix products
    bytes: float  # of the HBM
    collectives: dict[Traffic, Sum]
    items: list[Item]

    def dearest(self, most: int) -> list[Item]:
        """The dearest items first; the equal ones of unrolled blocks are added up."""
        groups: defaultdict[tuple[str, str], list[Item]] = defaultdict(list)
        for item in self.items:
            shown = item.instruction
            groups[shown.source or shown.name, shown.shape].append(item)
        found = [_added(items) for items in groups.values()]
        return sorted(found, key=lambda item: -item.seconds)[:most]


def _added(items: list[Item]) -> Item:
    return Item(
        instruction=items[0].instruction,
        times=sum(item.times for item in items),
        seconds=sum(item.seconds for item in items),
        flops=sum(item.flops for item in items),
        bytes=sum(item.bytes for item in items),
    )


def walk(program: Program, network: Network) -> Timeline:
    """The predicted time of one step of a compiled program."""
    return _Walk(program, network).result()


@dataclasses.dataclass
class _Clock:
    """Times since the computation began: of the core, and when each queue is free again."""

    now: float = 0.0
    copies: float = 0.0
    ring: float = 0.0
    between: float = 0.0
    ends: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Chain:
    """A collective inside fusions: it begins in the first and ends in the last of them."""

    first: str
    last: str
    collective: Instruction
    where: Computation
    kind: str


class _Walk:
    def __init__(self, program: Program, network: Network) -> None:
        self._program, self._network = program, network
        self._costs = Costs(program, network.chip)
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._traffic: dict[Traffic, Sum] = {}
        self._items: dict[int, Item] = {}
        self._draws = functools.cache(self._draws_random_numbers)
        self._started: dict[str, str] = {}  # call-start -> the computation that it calls

    def result(self) -> Timeline:
        seconds, sums = self._computation(self._program.entry, 1), self._sums
        items = sorted(self._items.values(), key=lambda item: -item.seconds)
        return Timeline(
            seconds=seconds,
            matmul=sums["matmul"],
            drawing=sums["drawing"],
            other=sums["core"] - sums["matmul"],
            exposed=sums["exposed"],
            exposed_between=sums["exposed_between"],
            waiting=sums["waiting"],
            flops=sums["flops"],
            bytes=sums["bytes"],
            collectives=self._traffic,
            items=items,
        )

    def _computation(self, name: str, times: int) -> float:
        """The seconds of one execution of a computation that a step executes `times` times."""
        where, clock = self._program.computations[name], _Clock()
        chains = self._chains(where)
        for one in where.values():
            if one.op == "while":
                trips = hlo.trips(self._program, where, one)
                clock.now += trips * self._computation(one.reference("body"), times * trips)
            elif one.op == "call":
                clock.now += self._computation(one.reference("to_apply"), times)
            elif collectives.kind_of(one.op):
                self._collective(one, where, clock, times)
            elif one.op in ("send", "recv", "send-done", "recv-done"):
                self._between_slices(one, clock, times)
            elif one.op in ("call-start", "call-update", "call-done"):
                self._offloaded(one, clock, times)
            elif one.op.endswith("-start"):
                self._start(one, clock, times)
            elif one.op.endswith("-done"):
                self._wait(clock, one.operands[0], "waiting", times)
            elif one.op != "async-update":
                self._core(one, where, clock, times, chains)
        return clock.now

    def _wait(self, clock: _Clock, started: str, kind: str, times: int) -> None:
        """The core waits until an asynchronous operation ends."""
        end = clock.ends.get(started, clock.now)
        self._sums[kind] += max(0.0, end - clock.now) * times
        clock.now = max(clock.now, end)

    def _collective(self, one: Instruction, where: Computation, clock: _Clock, times: int) -> None:
        if one.op.endswith("-done"):
            self._wait(clock, one.operands[0], "exposed", times)
            return
        early = one.op.endswith("-start")
        kind = collectives.kind_of(one.op)
        seconds = self._record(one, kind, where, early=early, times=times)
        self._ring(clock, one.name, seconds, early=early, times=times)

    def _ring(self, clock: _Clock, name: str, seconds: float, *, early: bool, times: int) -> None:
        """Puts a collective on the network, beside the core or while the core waits."""
        if early:
            clock.ring = max(clock.ring, clock.now) + seconds
            clock.ends[name] = clock.ring
        else:
            clock.now += seconds
            self._sums["exposed"] += seconds * times

    def _record(
        self, one: Instruction, kind: str, where: Computation, *, early: bool, times: int
    ) -> float:
        """Adds a collective to the summary, and returns its seconds."""
        network = self._network
        members = collectives.first_group(one, network.devices)
        permutes = kind == "collective-permute"
        devices = network.devices if permutes else len(members)
        size = collectives.size_of(one, kind, where)
        crosses = network.crosses(members)
        if crosses:
            seconds = network.across(kind, size, members)
        else:
            seconds = network.seconds(kind, size, devices=devices)
        link = network.links[crosses]
        key = Traffic(kind, network.axes(members), devices, link, early)
        self._traffic.setdefault(key, Sum()).add(times=times, size=size, seconds=seconds)
        return seconds

    def _between_slices(self, one: Instruction, clock: _Clock, times: int) -> None:
        """A transfer between slices: `send` starts it, and `recv-done` waits for the other side."""
        if one.op == "send" and "xla_megascale" in one.attributes:
            size = hlo.array_bytes(hlo.elements(one.shape)[0])
            match = re.search(r'_xla_megascale_transfer_type="(\w+)"', one.attributes)
            kind = match.group(1).lower().replace("_", "-") if match else "send"
            slices = len(set(self._network.slice_of))
            seconds = self._network.between_slices(kind, size, slices=slices)
            clock.between = max(clock.between, clock.now) + seconds
            key = Traffic(kind, "slices", slices, "DCN", True)
            self._traffic.setdefault(key, Sum()).add(times=times, size=size, seconds=seconds)
        elif one.op == "recv-done":
            clock.ends[one.name] = clock.between
            self._wait(clock, one.name, "exposed_between", times)

    def _offloaded(self, one: Instruction, clock: _Clock, times: int) -> None:
        """Collectives that the SparseCore executes beside the core."""
        if one.op == "call-done":
            self._wait(clock, one.operands[0], "exposed", times)
            return
        if one.op == "call-start":
            self._started[one.name] = one.reference("to_apply")
            source, begins = one.name, bool(one.operands)
        else:
            source, begins = one.operands[0], True
        if begins:
            name = self._started.get(source, "")
            for inner, where in collectives.inside(self._program, name):
                kind = collectives.kind_of(inner.op)
                seconds = self._record(inner, kind, where, early=True, times=times)
                self._ring(clock, one.name, seconds, early=True, times=times)

    def _start(self, one: Instruction, clock: _Clock, times: int) -> None:
        """An asynchronous collective, or else a copy between memories."""
        found = collectives.inside(self._program, one.reference("calls"))
        if found:
            inner, where = found[0]
            kind = collectives.kind_of(inner.op)
            seconds = self._record(inner, kind, where, early=True, times=times)
            self._ring(clock, one.name, seconds, early=True, times=times)
            return
        sizes = map(hlo.array_bytes, hlo.elements(one.shape))
        size = min((size for size in sizes if size > _SMALL), default=0.0)
        speed = self._network.chip.bandwidth * REACHED
        clock.copies = max(clock.copies, clock.now) + size / speed + _START_OF_COPY
        clock.ends[one.name] = clock.copies

    def _chains(self, where: Computation) -> list[_Chain]:
        """The collectives inside the fusions of a computation, by their channel."""
        chains: dict[str, _Chain] = {}
        for one in where.values():
            if one.op != "fusion":
                continue
            name = one.reference("calls")
            for inner, place in collectives.inside(self._program, name):
                match = re.search(r"channel_id=(\d+)", inner.attributes)
                kind = collectives.kind_of(inner.op)
                kind = "reduce-scatter" if "all-reduce-scatter" in name else kind
                chain = _Chain(one.name, one.name, inner, place, kind)
                chains.setdefault(match.group(1) if match else one.name, chain).last = one.name
        return list(chains.values())

    def _core(
        self,
        one: Instruction,
        where: Computation,
        clock: _Clock,
        times: int,
        chains: list[_Chain],
    ) -> None:
        """An instruction of the core, and the collectives that begin or end inside it."""
        waits = False
        for chain in chains:
            if chain.first == one.name:
                early = chain.last != chain.first
                seconds = self._record(
                    chain.collective, chain.kind, chain.where, early=early, times=times
                )
                self._ring(clock, chain.collective.name, seconds, early=early, times=times)
                waits = waits or not early
        cost = Cost() if waits else self._costs.of(one, where)
        clock.now += cost.seconds
        for chain in chains:
            if chain.last == one.name and chain.first != one.name:
                self._wait(clock, chain.collective.name, "exposed", times)
        self._count(one, cost, times)

    def _draws_random_numbers(self, name: str) -> bool:
        """Whether a fusion draws random numbers: Threefry has a xor in each of its rounds."""
        return sum(one.op == "xor" for one in hlo.called(self._program, name)) >= _ROUNDS

    def _count(self, one: Instruction, cost: Cost, times: int) -> None:
        if not cost.seconds:
            return
        seconds = cost.seconds * times
        flops, moved = cost.flops * times, cost.bytes * times
        self._sums["core"] += seconds
        self._sums["matmul"] += seconds if cost.flops else 0.0
        if cost.flops and self._draws(one.reference("calls")):
            self._sums["drawing"] += seconds
        self._sums["flops"] += flops
        self._sums["bytes"] += moved
        item = self._items.setdefault(id(one), Item(one, 0, 0.0, 0.0, 0.0))
        item.times += times
        item.seconds += seconds
        item.flops += flops
        item.bytes += moved
