"""`benchmark scaling`: the rate per device on 1, 2, 4, ... devices, with as many images on each."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vit_jax.benchmark import step as step_lib
from vit_jax.benchmark.report import Measured
from vit_jax.benchmark.samples import Quantity
from vit_jax.benchmark.step import Repeats
from vit_jax.benchmark.training import Training
from vit_jax.config import Config
from vit_jax.data.record import DataFacts
from vit_jax.parallel import agreement
from vit_jax.parallel import mesh as mesh_lib

_SIMULATED = (
    "the devices of this platform are simulated and share the cores of the host, so the efficiency"
    " is not that of real devices"
)


def measure(
    config: Config,
    facts: DataFacts,
    *,
    repeats: Repeats,
    devices: Sequence[jax.Device] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Measures the step on growing subsets of `devices` (unset: all), with equal shares of a batch.

    `config.batch_size` is that of all devices. Raises ValueError if the config cannot be run, or
    if the mesh has no smaller size; RunFailed if the memory is too small.
    """
    # Whole processes one after another: a process whose devices are not used waits.
    devices = sorted(devices or jax.devices(), key=lambda one: (one.process_index, one.id))
    sizes = subsets(config.mesh, len(devices))
    mesh_lib.check_batch(
        mesh_lib.make_mesh(config.mesh, devices),
        config.batch_size,
        accumulate=config.optimizer.accumulate,
        name="config.batch_size",
    )
    times: dict[int, Quantity] = {}
    for size in sizes:
        share = dataclasses.replace(config, batch_size=config.batch_size * size // len(devices))
        chosen, training = devices[:size], None
        with agreement.Meeting():  # no process runs steps while another one compiles
            if any(device.process_index == jax.process_index() for device in chosen):
                training = Training(share, facts, devices=chosen, say=say)
        with agreement.Meeting():
            if training:
                times[size] = step_lib.timed(training, repeats)
        del training  # its memory is for the next one
    return Measured(
        measured={f"step_on_{size}": one for size, one in times.items()},
        results={"points": points(times, batch_size=config.batch_size, devices=len(devices))},
        notes=[_SIMULATED] if devices[0].platform == "cpu" else [],
    )


def subsets(mesh: mesh_lib.MeshConfig, devices: int) -> list[int]:
    """The numbers of devices that the mesh can have: the powers of two below all, and all.

    Raises ValueError if there is no smaller number than all.
    """
    if devices == 1:
        raise ValueError(
            "scaling needs several devices, but there is 1: on a CPU, JAX_NUM_CPU_DEVICES=4"
            " simulates four"
        )
    axes = dataclasses.asdict(mesh)
    known = math.prod(size for size in axes.values() if size != -1)
    wanted = [2**power for power in range(devices.bit_length()) if 2**power < devices]
    found = [size for size in wanted if size % known == 0] if -1 in axes.values() else []
    if not found:
        given = ", ".join(f"config.mesh.{axis} {size}" for axis, size in axes.items() if size > 1)
        raise ValueError(
            f"there is no mesh of fewer than {devices} devices with {given}: set this axis to -1,"
            " which means all devices that are left"
        )
    return [*found, devices]


def points(times: Mapping[int, Quantity], *, batch_size: int, devices: int) -> list[dict[str, Any]]:
    """The rates of each size; efficiency and speed-up are relative to the smallest size."""
    found: list[dict[str, Any]] = []
    for size, one in times.items():
        batch = batch_size * size // devices
        rate = batch / one.median
        first = found[0] if found else {"images_per_second": rate, "devices": size}
        each = rate / size
        found.append(
            {
                "devices": size,
                "batch_size": batch,
                "seconds": one.median,
                "images_per_second": rate,
                "images_per_second_per_device": each,
                "efficiency": each / (first["images_per_second"] / first["devices"]),
                "speed_up": rate / first["images_per_second"],
            }
        )
    return found
