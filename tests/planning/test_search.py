"""What a search tries and how scaling is counted; the TPU compiler is not needed."""

import dataclasses

import pytest

from vit_jax.config import Config, default_config, resolve
from vit_jax.data.record import DataFacts
from vit_jax.duration import Duration
from vit_jax.errors import RunFailed
from vit_jax.planning import advice, changes, scaling, search, table, topologies
from vit_jax.planning.job import Bytes, Job, Result, Step
from vit_jax.planning.schedule import Sum, Timeline, Traffic

HELD = Bytes(
    parameters=4e8,
    optimizer=8e8,
    average=0,
    gradients=4e8,
    batch=1e7,
    frozen=0,
    activations=2e9,
)
STEP = Step(
    mesh={"data": 8, "fsdp": 1, "tensor": 1},
    slice_of=[],
    parameters=100_000_000,
    steps=1000,
    flops=5e13,
    traced_flops=5e13,
    bytes=HELD,
    tokens=196,
    widths={"width": 768, "mlp_dim": 3072},
    image_bytes=150_528,
    remat="none",
    unroll=1,
)
TIME = Timeline(
    seconds=0.1,
    matmul=0.07,
    drawing=0.0,
    other=0.02,
    exposed=0.01,
    exposed_between=0.0,
    waiting=0.0,
    flops=5e13 / 8,
    bytes=1e10,
    collectives={},
    items=[],
)


def job(topology: str = "v5e-8", batch_size: int = 512) -> Job:
    config = default_config()
    config.model.name, config.batch_size = "Ti/16", batch_size
    facts = DataFacts(train_size=10_000, num_classes=10)
    return Job(config=resolve(config), facts=facts, topology=topologies.parse(topology))


class Memory:
    """Stands for the compiler: a device needs `fixed` bytes and `each` for every image."""

    def __init__(self, *, fixed: float, each: float) -> None:
        self.fixed, self.each, self.probes = fixed, each, 0

    def one(self, wanted: Job) -> Result:
        self.probes += 1
        config: Config = wanted.config
        factor = {"none": 4, "dots": 3, "auto": 2, "lean": 2, "full": 1}[config.model.get("remat")]
        needed = self.fixed + config.batch_size / 8 * self.each * factor
        return Result(step=STEP, needed=needed, fits=needed <= wanted.topology.chip.memory)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    memory = Memory(fixed=1e9, each=3e7)
    found = search.largest(memory, job())
    assert [remat for remat, _, _ in found] == ["none", "dots", "lean", "full"]
    for (_, batch, result), each in zip(found, (1.2e8, 9e7, 6e7, 3e7), strict=True):
        usable = topologies.parse("v5e-8").chip.memory
        assert result.fits and result.needed + each > usable
        assert batch % 8 == 0
    assert memory.probes <= 12


def test_a_step_that_needs_less_where_it_does_not_fit_is_searched_by_halves() -> None:
    """Measured for B/16 on v5e-256: 64 images need 9.1 GiB, 128 16.1, and 124 16.3."""

    class Recomputes(Memory):
        def one(self, wanted: Job) -> Result:
            found = super().one(wanted)
            usable = wanted.topology.chip.memory
            needed = found.needed if found.fits else usable + 1e9 - found.needed / 100
            return dataclasses.replace(found, needed=needed)

    found = search.largest(Recomputes(fixed=1e9, each=4e7), job(batch_size=512))
    usable = topologies.parse("v5e-8").chip.memory
    assert all(result.fits and result.needed > 0.85 * usable for _, _, result in found)


def test_changes_that_fit_are_the_cheapest_and_all_fit() -> None:
    wanted = job(batch_size=4096)
    found = changes.that_fit(Memory(fixed=1e9, each=2e7), wanted, dataclasses.replace(STEP))
    assert 0 < len(found) <= changes.WANTED
    usable = wanted.topology.chip.memory
    assert all(needed <= usable for _, needed in found)
    assert "--config.model.remat=full" in [str(change) for change, _ in found]
    fields = [field for change, _ in found for field in change.fields]
    assert len(fields) == len(set(fields))  # no second value of a field that already fits


def test_a_change_that_the_compiler_cannot_probe_is_left_out() -> None:
    class Fails(Memory):
        def one(self, wanted: Job) -> Result:
            if wanted.config.mesh.fsdp == 8:
                raise RunFailed("the compiler ended (SIGABRT) for v5e-8")
            return super().one(wanted)

    wanted = job(batch_size=4096)
    found = changes.that_fit(Fails(fixed=1e9, each=2e7), wanted, STEP)
    assert found and not any("mesh.fsdp=8" in str(change) for change, _ in found)


def test_the_largest_batch_per_device_is_a_part_of_the_mesh() -> None:
    """Devices along the tensor axis have the same images."""
    step = dataclasses.replace(STEP, mesh={"data": 2, "fsdp": 2, "tensor": 2})
    rows = table.batches([("full", 64, Result(step=step))], topologies.parse("v5e-8"))
    assert rows[1][:3] == ("full", "64", "16")


def test_a_changed_config_is_checked_like_any_other() -> None:
    config = changes.changed(job().config, {"model.remat": "full", "batch_size": 64})
    assert (config.model.get("remat"), config.batch_size) == ("full", 64)
    with pytest.raises(ValueError, match="remat"):
        changes.changed(config, {"model.remat": "some"})


def test_scaling_goes_from_the_first_size_to_several_slices() -> None:
    names = [t.name for t in scaling.sizes(topologies.parse("v5e-8"), most=1024)]
    assert names == [
        *("v5e-8", "v5e-16", "v5e-32", "v5e-64", "v5e-128", "v5e-256"),
        *("2xv5e-256", "4xv5e-256"),
    ]
    nodes = scaling.sizes(topologies.parse("h100-1"), most=32)
    assert [t.name for t in nodes] == [
        "h100-1",
        "h100-2",
        "h100-4",
        "h100-8",
        "2xh100-8",
        "4xh100-8",
    ]
    pods = scaling.sizes(topologies.parse("v5p-16"), most=6144)
    assert pods[0].chips == 8 and pods[-1].chips == 6144


@pytest.mark.parametrize(
    ("first", "most", "names"),
    [
        ("2xv5e-64", 512, ["2xv5e-64", "4xv5e-64", "8xv5e-64"]),
        ("2xv5e-256", 2048, ["2xv5e-256", "4xv5e-256", "8xv5e-256"]),
        ("3xh100-8", 64, ["3xh100-8", "6xh100-8"]),
        ("200xh100-8", 8192, ["200xh100-8"]),
        ("v5p:2x8x8", 512, ["v5p:2x8x8", "v5p-512", "v5p-1024"]),
        ("v5e:2x16", 64, ["v5e:2x16", "v5e-64"]),
        ("v5p-384", 768, ["v5p-384", "v5p-768", "v5p-1536"]),
        ("v5e-64", 32, ["v5e-64"]),
    ],
)
def test_scaling_begins_with_the_topology_itself(first, most, names) -> None:
    found = scaling.sizes(topologies.parse(first), most=most)
    assert [topology.name for topology in found] == names


def test_a_larger_batch_leaves_enough_steps_for_the_warm_up() -> None:
    config = dataclasses.replace(job().config, total=Duration(epochs=10))  # 195 steps of 512
    config = changes.changed(config, {"schedule.warmup": {"steps": 100}})
    long = dataclasses.replace(job(), config=config)
    points = list(scaling._jobs(long, "weak", scaling.sizes(long.topology, most=1024)))
    assert [point.config.batch_size for point in points] == [512 * 2**n for n in range(8)]
    assert {point.config.total.steps for point in points} == {195}
    strong = scaling._jobs(long, "strong", scaling.sizes(long.topology, most=1024))
    assert [(one.topology.chips, one.config.batch_size) for one in strong][-1] == (512, 512)


def test_strong_scaling_leaves_out_sizes_that_the_batch_cannot_be_divided_over() -> None:
    wanted = job(batch_size=48)
    strong = scaling._jobs(wanted, "strong", scaling.sizes(wanted.topology, most=256))
    assert [one.topology.chips for one in strong] == [8, 16]  # 48 / 32 is no whole number


@pytest.mark.parametrize(
    ("step", "batch", "slices", "words"),
    [
        ({"tokens": 257}, 512, 1, "257 tokens are computed as 384"),
        ({"tokens": 264}, 512, 1, "264 tokens are computed as 384"),
        ({"tokens": 265}, 512, 1, ""),
        ({"tokens": 197}, 512, 1, ""),
        ({"tokens": 256}, 512, 1, ""),
        ({}, 16, 1, "only 2 images"),
        ({"widths": {"width": 192}}, 512, 1, "width 192 is computed as 256: 25%"),
        ({"mesh": {"data": 1, "fsdp": 16, "tensor": 1}}, 512, 2, "cross the slow network"),
    ],
)
def test_a_warning_only_where_it_saves_money(step, batch, slices, words) -> None:
    topology = dataclasses.replace(topologies.parse("v5e-8"), slices=slices)
    found = advice.of_step(dataclasses.replace(STEP, **step), topology, batch_size=batch)
    assert [words in text for text in found] == ([True] if words else [])


def test_hosts_that_decode_too_few_images_are_found() -> None:
    topology = topologies.parse("v5e-8")
    decoding = advice.Decoding(per_core=10.0)  # 2,240 images of 224 cores
    assert not advice.of_input(topology, 2240.0, decoding)
    (text,) = advice.of_input(topology, 8960.0, decoding)
    assert "8,960 images per second, and its cores decode 2,240" in text
    assert "wait for 75% of the time" in text


def test_recomputation_that_nobody_asked_for_is_found() -> None:
    assert not advice.of_program(TIME, STEP, devices=8)
    more = dataclasses.replace(TIME, flops=1.19 * TIME.flops)
    (text,) = advice.of_program(more, STEP, devices=8)
    assert "19% more FLOPs" in text


def test_long_waits_and_thin_shards_are_found() -> None:
    step = dataclasses.replace(STEP, mesh={"data": 1, "fsdp": 64, "tensor": 1})
    traffic = {Traffic("all-reduce", "fsdp", 64, "ICI", False): Sum(150, 1.8e9, 0.04)}
    slow = dataclasses.replace(TIME, exposed=0.04, collectives=traffic)
    waits, thin = advice.of_program(slow, step, devices=8)
    assert "40% of a step" in waits
    assert "1.80 GB" in thin and "--config.mesh.fsdp=8" in thin


def test_dropout_inside_matrix_products_is_found() -> None:
    (text,) = advice.of_program(dataclasses.replace(TIME, drawing=0.03), STEP, devices=8)
    assert "30% of a step" in text


def test_hosts_that_decode_too_slowly_are_found() -> None:
    topology = topologies.parse("v5e-8")
    assert topology.host_cores == 224  # its one host has twice the cores of a host with 4 chips
    decoding = advice.Decoding(per_core=100)
    assert not advice.of_input(topology, 100 * 224, decoding)
    (text,) = advice.of_input(topology, 200 * 224, decoding)
    assert "wait for 50% of the time" in text
