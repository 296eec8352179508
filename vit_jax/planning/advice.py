"""Warnings that save money: what makes a step slower than its chips."""

import dataclasses
import math

from vit_jax.models.sharding import LANES
from vit_jax.planning.job import Step
from vit_jax.planning.schedule import Timeline
from vit_jax.planning.topologies import Topology
from vit_jax.training.compute import LONGER

_JUST_OVER = 8  # tokens above a multiple that cost a whole tile
_USED = 0.85  # share of a padded width below which it is worth a warning
_FEW = 8  # images of a device
_MUCH_WAITING = 0.2  # share of a step
_MUCH_DRAWING = 0.1  # share of a step
_MORE_FLOPS = 1.03  # of the compiled step over the traced one

HURRIED = (
    "the run itself unrolls its blocks, which takes too long to compile here: this is the plan with"
    f" scanned blocks, whose steps take {LONGER}; --limit gives the compiler more time"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoding:
    """How fast hosts decode images: read, decode, crop and augment them."""

    per_core: float  # images per second of a core
    cores: int = 0  # of the host that was measured; 0: unknown

    def of_host(self, topology: Topology) -> float:
        """The images per second of a host; 0: the number of its cores is unknown."""
        return self.per_core * (topology.host_cores or self.cores)


def of_step(step: Step, topology: Topology, *, batch_size: int) -> list[str]:
    """What can be said before anything is compiled."""
    found = []
    tpu = topology.chip.platform == "tpu"  # GPUs have narrower matrix units
    over = step.tokens % LANES
    if tpu and step.tokens > LANES and 0 < over <= _JUST_OVER:
        padded = step.tokens - over + LANES
        found.append(
            f"{step.tokens} tokens are computed as {padded}, just over a multiple of {LANES}: with"
            f" {step.tokens - over} (config.model.pool=gap without a class token, or another image"
            " size) attention and MLP cost much less"
        )
    each = batch_size / step.batch_parts
    if each < _FEW:
        found.append(
            f"a device has only {each:.3g} images of a batch of {batch_size}: the step reads the"
            " parameters as often for few images as for many; use fewer chips or a larger batch"
        )
    found += _padded(step.widths) if tpu else []
    if topology.slices > 1 and step.mesh["data"] % topology.slices:
        found.append(
            f"config.mesh.data {step.mesh['data']} is no multiple of the {topology.slices} slices:"
            " parameters cross the slow network between slices"
        )
    return found


def _padded(widths: dict[str, int]) -> list[str]:
    """Widths that the matrix units pad by much."""
    found = []
    for name, size in widths.items():
        full = -(-size // LANES) * LANES
        if size / full < _USED:
            found.append(
                f"config.model.{name} {size} is computed as {full}: {1 - size / full:.0%} of the"
                " matrix unit is idle there"
            )
    return found


def of_program(timeline: Timeline, step: Step, *, devices: int) -> list[str]:
    """What the compiled program shows."""
    found = []
    hidden = timeline.flops * devices / step.traced_flops
    if hidden > _MORE_FLOPS:
        found.append(
            f"the compiled step has {hidden - 1:.0%} more FLOPs than the traced one (remat"
            f" {step.remat!r}): the compiler recomputes by itself to save memory; use a smaller"
            " batch, more chips, or config.mesh.fsdp"
        )
    waiting = timeline.exposed + timeline.exposed_between
    if waiting > _MUCH_WAITING * timeline.seconds:
        found.append(
            f"the core waits for communication during {waiting / timeline.seconds:.0%} of a step:"
            " try another mesh (--search), or more images per device"
        )
    if timeline.drawing > _MUCH_DRAWING * timeline.seconds:
        found.append(
            f"matrix products that draw the random numbers of dropout take"
            f" {timeline.drawing / timeline.seconds:.0%} of a step: without config.model.dropout"
            " and attention_dropout they are faster; config.model.drop_path costs nothing"
        )
    found += _thin_shards(timeline, step)
    return found


def _thin_shards(timeline: Timeline, step: Step) -> list[str]:
    """Whether the compiler sums activations instead of gathering the parameters of fsdp."""
    fsdp = step.mesh["fsdp"]
    along = dict.fromkeys(("all-gather", "all-reduce"), 0.0)
    for traffic, total in timeline.collectives.items():
        if "fsdp" in traffic.axes and traffic.kind in along:
            along[traffic.kind] += total.bytes
    if fsdp < 2 or along["all-reduce"] < 2 * max(along["all-gather"], 2.0 * step.parameters):
        return []
    better = 2 ** round(math.log2(fsdp) / 2)
    return [
        f"the shards of fsdp={fsdp} are so thin that the compiler sums"
        f" {along['all-reduce'] / 1e9:.2f} GB a step instead of gathering parameters: try"
        f" --config.mesh.data=-1 --config.mesh.fsdp={better}"
    ]


def of_input(topology: Topology, images_per_host: float, decoding: Decoding | None) -> list[str]:
    """Whether the cores of a host can decode as fast as its chips train."""
    can = decoding.of_host(topology) if decoding else 0.0
    if not can or images_per_host <= can:
        return []
    return [
        f"a host needs {images_per_host:,.0f} images per second, and its cores decode {can:,.0f}:"
        f" the chips wait for {1 - can / images_per_host:.0%} of the time; use smaller files, or"
        " more hosts per chip"
    ]
