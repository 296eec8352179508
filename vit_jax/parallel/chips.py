"""Facts about the generations of TPUs. Those about GPUs are in `gpus`.

A device is what JAX calls a device: half of a chip of v2, v3 and tpu7x, a whole chip of the others.

Sources. Peak FLOP/s, memory and bandwidth: the pages of each version in the Cloud TPU documentation
(cloud.google.com/tpu/docs/v5e and so on). Cores: the types of machines there. Usable memory: the
TPU compiler, which keeps a part for itself. Clock: the clock at which the compiler's cycle counts
agree with its matrix products at the peak. Link: the bandwidth of one link in one direction, as the
published rates between chips divided by the number of links.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A generation of TPUs. Figures are per device, except where they say per chip."""

    name: str
    platform: str = "tpu"
    kind: str  # `device_kind` in JAX
    aliases: tuple[str, ...] = ()  # other names in Cloud, and labels of GKE
    machines: tuple[str, ...] = ()  # prefixes of machine types, such as ct5lp-hightpu of -8t
    devices: int = 1  # devices per chip
    counted: int = 1  # what the number in a name of Cloud counts, per chip
    dimensions: int = 2  # of the network of a slice
    largest: tuple[int, ...]  # the largest slice that the compiler accepts, in chips
    chips_per_host: int = 4
    on_one_host: int = 4  # chips of the largest slice that has one host
    parts_of_board: tuple[tuple[int, ...], ...] = ()  # slices smaller than a board of 2x2 chips
    memory: float  # bytes that a program can use
    peak: float  # bfloat16 FLOP/s
    bandwidth: float  # bytes per second of the HBM
    clock: float  # Hz
    link: float  # bytes per second of a link between chips, in one direction
    between: float = 6.25e9  # bytes per second of a device to other slices, through its host
    cores: tuple[tuple[int, int], ...]  # chips of a host in Cloud, and its virtual CPU cores

    @property
    def ring(self) -> float:
        """Bytes per second of a collective along an axis of the network, in both directions."""
        return 2 * self.link


_GIB = 2.0**30
CHIPS = (
    Chip(
        name="v2",
        kind="TPU v2",
        devices=2,
        counted=2,
        largest=(16, 16),
        memory=7.48 * _GIB,
        peak=23e12,
        bandwidth=350e9,
        clock=0.70e9,
        link=62e9,
        cores=((4, 96),),
    ),
    Chip(
        name="v3",
        aliases=("tpu-v3-device", "tpu-v3-slice"),
        machines=("ct3-hightpu", "ct3p-hightpu"),
        kind="TPU v3",
        devices=2,
        counted=2,
        largest=(32, 32),
        memory=15.48 * _GIB,
        peak=61.5e12,
        bandwidth=450e9,
        clock=0.94e9,
        link=100e9,
        cores=((4, 96),),
    ),
    Chip(
        name="v4",
        aliases=("tpu-v4-podslice",),
        machines=("ct4p-hightpu",),
        kind="TPU v4",
        counted=2,
        dimensions=3,
        largest=(16, 16, 24),
        memory=30.75 * _GIB,
        peak=275e12,
        bandwidth=1228e9,
        clock=1.05e9,
        link=45e9,
        cores=((4, 240),),
    ),
    Chip(
        name="v5e",
        on_one_host=8,
        kind="TPU v5 lite",
        aliases=("v5litepod", "v5lite", "tpu-v5-lite-podslice", "tpu-v5-lite-device"),
        machines=("ct5lp-hightpu", "ct5l-hightpu"),
        parts_of_board=((1, 1),),
        largest=(16, 16),
        memory=15.75 * _GIB,
        peak=197e12,
        bandwidth=819e9,
        clock=1.50e9,
        link=45e9,
        cores=((1, 24), (4, 112), (8, 224)),
    ),
    Chip(
        name="v5p",
        aliases=("tpu-v5p-slice",),
        machines=("ct5p-hightpu",),
        parts_of_board=((1, 1, 1), (1, 2, 1)),
        kind="TPU v5",
        counted=2,
        dimensions=3,
        largest=(16, 24, 24),
        memory=95.73 * _GIB,
        peak=459e12,
        bandwidth=2765e9,
        clock=1.75e9,
        link=90e9,
        cores=((4, 208),),
    ),
    Chip(
        name="v6e",
        aliases=("tpu-v6e-slice", "tpu-v6e-device"),
        machines=("ct6e-standard",),
        parts_of_board=((1, 1),),
        on_one_host=8,
        kind="TPU v6 lite",
        largest=(16, 16),
        memory=31.24 * _GIB,
        peak=918e12,
        bandwidth=1640e9,
        clock=1.75e9,
        link=90e9,
        cores=((1, 44), (4, 180), (8, 180)),
    ),
    Chip(
        name="tpu7x",
        kind="TPU7x",
        aliases=("v7x", "ironwood"),
        machines=("tpu7x-standard",),
        parts_of_board=((1, 1, 1),),
        devices=2,
        counted=2,
        dimensions=3,
        largest=(16, 24, 24),
        memory=94.74 * _GIB,
        peak=1153e12,
        bandwidth=3690e9,
        clock=2.2e9,
        link=90e9,
        cores=((4, 224),),
    ),
)
