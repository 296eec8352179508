"""The collectives of a compiled program: kind, mesh axes, bytes and time.

The time is that of a ring along one axis of the network, in both directions at once. This is
pessimistic, up to threefold, for groups that span a whole slice of v4, v5p or tpu7x.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vit_jax.parallel.chips import Chip
from vit_jax.planning import hlo
from vit_jax.planning.hlo import Computation, Instruction, Program

KINDS = (
    *("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all"),
    *("ragged-all-to-all", "collective-broadcast"),
)
_PASSES = {"all-reduce": 2.0, "all-gather": 1.0, "reduce-scatter": 1.0, "all-to-all": 0.25}
_START = 1e-6  # seconds to start a collective, times the root of the number of devices
_FROM_HOST_TO_HOST = 50e-6  # seconds to start a transfer between slices


def kind_of(op: str) -> str:
    """The kind of collective of an operation, such as all-gather of all-gather-start, or ""."""
    base = re.sub(r"-(start|done)$", "", op)
    return base if base in KINDS else ""


@dataclasses.dataclass(frozen=True)
class Network:
    """The devices of a program: the chip, the sizes of the mesh by axis, and the slices."""

    chip: Chip
    mesh: Mapping[str, int]
    slice_of: Sequence[int] = ()  # the slice of each device in the order of the mesh; (): one slice

    @property
    def devices(self) -> int:
        return math.prod(self.mesh.values())

    @property
    def links(self) -> tuple[str, str]:
        """The names of the network inside a slice and of that between slices."""
        return ("ICI" if self.chip.platform == "tpu" else "NVLink", "DCN")

    def axes(self, members: Sequence[int]) -> str:
        """The mesh axes along which the devices of a group differ, such as `data+fsdp`."""
        places = np.unravel_index(np.array(members), tuple(self.mesh.values()))
        varying = [
            name for name, at in zip(self.mesh, places, strict=True) if len(np.unique(at)) > 1
        ]
        return "+".join(varying) or "none"

    def crosses(self, members: Sequence[int]) -> bool:
        """Whether a group has devices of several slices."""
        return bool(self.slice_of) and len({self.slice_of[member] for member in members}) > 1

    def between_slices(self, kind: str, size: float, *, slices: int) -> float:
        """The seconds of a collective of `size` bytes of a device with those of other slices.

        The slices form a ring, or send each other what they need: a sum moves 2 (n - 1) / n times
        its size between n slices, other collectives half of that, and a transfer its size.
        """
        share = 1.0
        if kind in _PASSES:
            share = (2.0 if kind == "all-reduce" else 1.0) * (slices - 1) / slices
        return share * size / self.chip.between + _FROM_HOST_TO_HOST

    def across(self, kind: str, size: float, members: Sequence[int]) -> float:
        """The seconds of a collective of a group of devices in several slices.

        The GPUs of a node form a ring with those of other nodes, over all their network cards.
        """
        slices = len({self.slice_of[member] for member in members})
        if self.chip.platform == "tpu":
            return self.between_slices(kind, size, slices=slices)
        ring = min(self.chip.ring, self.chip.between * len(members) / slices)
        share = (len(members) - 1) / len(members)
        return _PASSES.get(kind, 1.0) * share * size / ring + _FROM_HOST_TO_HOST

    def seconds(self, kind: str, size: float, *, devices: int) -> float:
        """The time of a collective of `size` bytes in groups of `devices`."""
        if devices <= 1:
            return 1e-6
        start = _START * math.sqrt(min(devices, 64))
        if kind == "collective-permute":
            return size / self.chip.link + start
        ring, share = self.chip.ring, (devices - 1) / devices
        passes = _PASSES.get(kind)
        return (size if passes is None else passes * share * size) / ring + start


def first_group(one: Instruction, devices: int) -> list[int]:
    """The members of the first group of a collective, as positions in the mesh."""
    text = one.attributes
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        return _of_mesh(*match.groups())
    if match := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        dims = [int(size) for size in match.group(3).split(",")]
        ids = np.arange(math.prod(dims)).reshape(dims)
        if match.group(4):
            ids = ids.transpose([int(axis) for axis in match.group(4).split(",")])
        members: list[int] = ids.reshape(-1)[: int(match.group(2))].tolist()
        return members
    if match := re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]*)\}", text):
        return [int(member) for member in match.group(1).split(",") if member]
    return list(range(devices))


def _of_mesh(axes: str, used: str) -> list[int]:
    """The first group of `'a'=8,'b'=4` along `'a','b':(1)2`: part 2 of axis b after a part of 1."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    strides, stride = {}, 1
    for name in reversed(sizes):
        strides[name] = stride
        stride *= sizes[name]
    members = np.zeros(1, int)
    for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", used):
        count = int(part) if part else sizes[name]
        inner = sizes[name] // (int(before) * count) if part else 1
        steps = np.arange(count) * strides[name] * inner
        members = (members[:, None] + steps).reshape(-1)
    found: list[int] = sorted(members.tolist())
    return found


def size_of(one: Instruction, kind: str, where: Computation) -> float:
    """The bytes of a collective: of its result, or of the operands of a reduce-scatter."""
    if kind == "reduce-scatter" and one.op != "all-reduce":
        return sum(hlo.array_bytes(where[n].shape) for n in one.operands if n in where)
    if one.op in ("all-gather-start", "collective-permute-start"):
        parts = hlo.elements(one.shape)
        return hlo.array_bytes(parts[1] if len(parts) > 1 else one.shape)
    return hlo.array_bytes(one.shape)


def inside(program: Program, name: str) -> list[tuple[Instruction, Computation]]:
    """The collectives in a computation and the fusions inside it, each with its computation."""
    found: list[tuple[Instruction, Computation]] = []
    where = program.computations.get(name, {})
    for one in where.values():
        if kind_of(one.op):
            found.append((one, where))
        if inner := one.reference("calls"):
            found += inside(program, inner)
    return found
