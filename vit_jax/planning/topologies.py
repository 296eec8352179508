"""Topologies by the names that users of Cloud TPUs write, and nodes of GPUs.

Such as `v5p-512`, `2xv5e-256`, `v5e:4x4`, `2xh100-8`, and types of machines such as
`ct5lp-hightpu-8t`.
"""

import dataclasses
import difflib
import functools
import itertools
import math
import re

from vit_jax.parallel.chips import CHIPS, Chip
from vit_jax.parallel.gpus import GPUS, Gpu

_ALL = (*CHIPS, *GPUS)
_BY_NAME = {name: chip for chip in _ALL for name in (chip.name, *chip.aliases)}
_MACHINES = {name: chip for chip in _ALL for name in chip.machines}
_NAME = re.compile(rf"(?:(\d+)x)?({'|'.join(_BY_NAME)})(?:-(\d+)|:(\d+(?:x\d+)*))")
_MACHINE = re.compile(rf"((?:\d+x)?)({'|'.join(_MACHINES)})-(\d+)[tg](:.+)?")
MOST_SLICES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """Slices of TPU chips, or nodes of GPUs."""

    chip: Chip
    shape: tuple[int, ...]  # chips of a slice along each dimension of its network
    slices: int = 1
    machine: int = 0  # chips of a host, where it is another machine than Cloud has for such a slice

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices

    @property
    def devices(self) -> int:
        """The number of devices that JAX has there."""
        return self.chips * self.chip.devices

    @property
    def hosts(self) -> int:
        """The number of hosts; the smallest slices have one host for all their chips."""
        machine = self.machine or _usual_machine(self.chip, self.shape)
        return self.slices * (math.prod(self.shape) // machine)

    @property
    def host_cores(self) -> int:
        """The CPU cores of a host in Cloud; 0: unknown."""
        chips = self.machine or _usual_machine(self.chip, self.shape)
        known, full = dict(self.chip.cores), self.chip.chips_per_host
        return known.get(chips) or known.get(full, 0) * chips // full

    @property
    def name(self) -> str:
        """The name in Cloud, such as 2xv5p-512; no two topologies have the same.

        With the shape, as in v5p:2x8x8, where Cloud gives a slice of this size another one, and
        with the machine, as in ct6e-standard-4t:2x4, where it is not the usual one.
        """
        several = f"{self.slices}x" if self.slices > 1 else ""
        if self.machine:
            return f"{several}{self.chip.machines[0]}-{self.machine}t:{self.sizes}"
        chips = math.prod(self.shape)
        if _shapes(self.chip).get(chips) != self.shape:
            return several + self.compiler_name
        return f"{several}{self.chip.name}-{chips * self.chip.counted}"

    @property
    def sizes(self) -> str:
        """The shape of a slice, such as 4x8x8."""
        return "x".join(map(str, self.shape))

    @property
    def compiler_name(self) -> str:
        """The name that the compiler knows."""
        return f"{self.chip.name}:{self.sizes}"

    @property
    def compiler_options(self) -> dict[str, object]:
        """Arguments of `topologies.get_topology_desc` beside the name."""
        if isinstance(self.chip, Gpu):
            sizes = f"{self.slices}x1x{self.shape[0]}"
            return {"target_config": self.chip.target, "topology": sizes}
        found: dict[str, object] = {}
        if self.chip.name == "v4":
            found["chip_config_name"] = "megacore"
        if self.shape in self.chip.parts_of_board:
            found["chips_per_host_bounds"] = (*self.shape, 1, 1)[:3]
        if self.slices > 1:
            found["num_slices"] = self.slices
        return found


def parse(name: str) -> Topology:
    """The topology of a name. Raises ValueError, with the nearest name, if there is none."""
    text, machine = _of_machine(name.strip().lower())
    match = _NAME.fullmatch(text)
    if not match:
        raise ValueError(f"no topology {name!r}: {_nearest(name)}")
    slices, family, count, shape = match.groups()
    chip = _BY_NAME[family]
    if not 1 <= int(slices or 1) <= MOST_SLICES:
        raise ValueError(f"topology {name!r}: give 1 to {MOST_SLICES} slices")
    sizes = _shape_of(chip, int(count), name) if count else tuple(map(int, shape.split("x")))
    topology = Topology(chip=chip, shape=sizes, slices=int(slices or 1))
    _check(topology, name)
    if not machine or machine == _usual_machine(chip, sizes):
        return topology
    if isinstance(chip, Gpu) or math.prod(sizes) % machine:
        raise ValueError(
            f"topology {name!r}: machines of {machine} chips cannot form a slice of"
            f" {math.prod(sizes)}"
        )
    return dataclasses.replace(topology, machine=machine)


def _of_machine(text: str) -> tuple[str, int]:
    """A name without its machine, and the chips of the machine; 0: none is named.

    It is the slice of one machine, or of machines that form a shape, as in ct5lp-hightpu-4t:4x4.
    """
    match = _MACHINE.fullmatch(text)
    if not match:
        return text, 0
    several, prefix, count, shape = match.groups()
    chip, chips = _MACHINES[prefix], int(count)
    if chips not in _shapes(chip) or chips > chip.on_one_host:
        return text, 0  # there is no such machine
    return several + chip.name + (shape or f"-{chips * chip.counted}"), chips


def _usual_machine(chip: Chip, shape: tuple[int, ...]) -> int:
    """The chips of a host of a slice, in the machine that Cloud has for it."""
    chips = math.prod(shape)
    return chips if chips <= chip.on_one_host else chip.chips_per_host


def _shape_of(chip: Chip, count: int, name: str) -> tuple[int, ...]:
    shapes = _shapes(chip)
    chips, rest = divmod(count, chip.counted)
    if rest or chips not in shapes:
        raise ValueError(f"no topology {name!r}: {_nearest(name)}")
    return shapes[chips]


@functools.cache
def _shapes(chip: Chip) -> dict[int, tuple[int, ...]]:
    """The shape that Cloud gives a slice, by its number of chips: the nearest to a cube."""
    if isinstance(chip, Gpu):
        return {count: (count,) for count in (1, 2, 4, 8)}
    small = {math.prod(shape): shape for shape in chip.parts_of_board}
    if chip.dimensions == 2:
        sides = [side for side in (1, 2, 4, 8, 16, 32) if side <= chip.largest[0]]
        pairs = [(a, b) for a in sides for b in (a, 2 * a) if b in sides and a > 1]
        return small | {a * b: (a, b) for a, b in pairs}
    found = small | {4: (2, 2, 1), 8: (2, 2, 2), 16: (2, 2, 4), 32: (2, 4, 4)}
    for shape in itertools.combinations_with_replacement(range(4, chip.largest[-1] + 1, 4), 3):
        if all(side <= most for side, most in zip(shape, chip.largest, strict=True)):
            chips = math.prod(shape)
            if chips not in found or sum(shape) < sum(found[chips]):
                found[chips] = shape
    return found


def _check(topology: Topology, name: str) -> None:
    """Raises ValueError for shapes on which the compiler fails, or ends the process."""
    chip, shape = topology.chip, topology.shape
    if len(shape) != chip.dimensions or min(shape) < 1:
        example = next(iter(_shapes(chip).values()))
        raise ValueError(
            f"topology {name!r}: a slice of {chip.name} has {chip.dimensions} dimensions, as in"
            f" {chip.name}:{'x'.join(map(str, example))}"
        )
    if any(a > b for a, b in zip(sorted(shape), chip.largest, strict=True)):
        largest = "x".join(map(str, chip.largest))
        raise ValueError(
            f"topology {name!r}: the largest slice of {chip.name} is {largest}"
            f" ({math.prod(chip.largest)} chips); use several slices, as in"
            f" 2x{chip.name}:{largest}"
        )
    if isinstance(chip, Gpu) or shape in chip.parts_of_board:
        return
    if any(side % 2 for side in shape[:2]):
        raise ValueError(
            f"topology {name!r}: a board has 2x2 chips, so the first two sizes of a slice are even"
        )


def _nearest(name: str) -> str:
    """Advice with the most similar name, or the nearest number of chips of this generation."""
    text = name.strip().lower()
    family = re.sub(r"^\d+x(?=[a-z])", "", text)
    wanted, _, count = family.rpartition("-")
    chip = _BY_NAME.get(wanted)
    if chip is not None and count.isdecimal():
        known = [chips * chip.counted for chips in _shapes(chip)]
        if int(count) > max(known):
            return f"use several slices, as in 2x{wanted}-{max(known)}"
        near = sorted(known, key=lambda n: abs(math.log(n / max(int(count), 1))))[:3]
        return f"the nearest are {', '.join(f'{wanted}-{n}' for n in sorted(near))}"
    names = [f"{f}-{n * chip.counted}" for f, chip in _BY_NAME.items() for n in _shapes(chip)]
    names += [
        f"{machine}-{chips}{'g' if isinstance(chip, Gpu) else 't'}"
        for machine, chip in _MACHINES.items()
        for chips in _shapes(chip)
        if chips <= chip.on_one_host
    ]
    similar = difflib.get_close_matches(family, names, n=1, cutoff=0.4)
    meant = f"did you mean {similar[0]}? " if similar else ""
    return f"{meant}examples are v5e-256, v5p-512, 2xv5e-256, v6e:4x4 and h100-8"
