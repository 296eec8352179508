"""TPU slices as lists of chips, as libtpu describes them, and a model of the links between them."""

import collections
import dataclasses
import itertools

import numpy as np

Place = tuple[int, ...]  # x, y, z of a chip in its slice


@dataclasses.dataclass(eq=False)
class Chip:
    """What is asked of a TPU's device when a mesh is laid out."""

    id: int
    process_index: int
    coords: Place
    device_kind: str
    slice_index: int
    platform: str = "tpu"
    core_on_chip: int = 0


def pod(
    kind: str, size: tuple[int, int, int], *, host: tuple[int, int] = (2, 2), slices: int = 1
) -> list[Chip]:
    """The chips of equal slices, in the order of their hosts, each of which holds a block."""
    chips: list[Chip] = []
    blocks = itertools.product(
        range(slices), range(size[2]), range(0, size[1], host[1]), range(0, size[0], host[0])
    )
    for process, (part, z, y, x) in enumerate(blocks):
        for j, i in itertools.product(range(host[1]), range(host[0])):
            number = x + i + size[0] * (y + j + size[1] * z)  # along the slice, through the hosts
            chips.append(
                Chip(number + 100_000 * part, process, (x + i, y + j, z), kind, slice_index=part)
            )
    return chips


def rings_on_the_busiest_link(mesh: np.ndarray, axis: int, size: tuple[int, int, int]) -> int:
    """How many rings share a link if all groups along a mesh axis use their ring at once.

    1 is the best. The compiler orders the members of a group like a snake. Hops take the shortest
    way, first along x, then y, then z. Sides that close to a ring: 16 of a v5e, 4 and more of a
    v5p.
    """
    closed = 16 if size[2] == 1 else 4
    rings = np.moveaxis(mesh, axis, -1).reshape(-1, mesh.shape[axis])
    used: collections.Counter[tuple[Place, Place]] = collections.Counter()
    for ring in rings:
        orders = ([chip.coords for chip in sorted(ring, key=key)] for key in (_by_row, _by_column))
        used.update(min((_links(order, size, closed) for order in orders), key=lambda c: c.total()))
    return max(used.values())


def _by_row(chip: Chip) -> Place:
    x, y, z = chip.coords
    return z, y if z % 2 == 0 else -y, x if y % 2 == 0 else -x


def _by_column(chip: Chip) -> Place:
    x, y, z = chip.coords
    return z, x, y if x % 2 == 0 else -y


def _links(
    places: list[Place], size: tuple[int, int, int], closed: int
) -> collections.Counter[tuple[Place, Place]]:
    """The links on the way from each place to the next, and from the last one to the first."""
    used: collections.Counter[tuple[Place, Place]] = collections.Counter()
    for start, end in zip(places, places[1:] + places[:1], strict=True):
        at = list(start)
        for side, length in enumerate(size):
            way = end[side] - at[side]
            if length >= closed and abs(way) * 2 > length:
                way -= length if way > 0 else -length
            for _ in range(abs(way)):
                before = tuple(at)
                at[side] = (at[side] + (1 if way > 0 else -1)) % length
                used[before, tuple(at)] += 1
    return used
