"""`benchmark scaling` on simulated devices."""

import jax
import pytest

from vit_jax.benchmark import scaling
from vit_jax.benchmark.samples import Quantity
from vit_jax.benchmark.step import Repeats
from vit_jax.commands import configs
from vit_jax.config import MeshConfig
from vit_jax.data.record import DataFacts

SMALL = ("--config.model.depth=1", "--config.ema=0", "--config.optimizer.name=sgd")  # compiles fast
FEW = ("--warmup", "1", "--rounds", "1", "--steps", "2")


@pytest.mark.parametrize(
    ("mesh", "devices", "expected"),
    [
        (MeshConfig(), 8, [1, 2, 4, 8]),
        (MeshConfig(), 6, [1, 2, 4, 6]),
        (MeshConfig(fsdp=4), 16, [4, 8, 16]),
        (MeshConfig(data=1, fsdp=-1, tensor=2), 8, [2, 4, 8]),
    ],
)
def test_a_subset_has_a_mesh(mesh, devices, expected) -> None:
    assert scaling.subsets(mesh, devices) == expected


@pytest.mark.parametrize("mesh", [MeshConfig(data=1, fsdp=8), MeshConfig(fsdp=8)])
def test_a_mesh_of_all_devices_only_is_refused(mesh) -> None:
    with pytest.raises(ValueError, match="fewer than 8 devices with .*config.mesh.fsdp 8"):
        scaling.subsets(mesh, 8)


def test_one_device_is_refused_and_says_how_to_simulate_more() -> None:
    with pytest.raises(ValueError, match="needs several devices.*JAX_NUM_CPU_DEVICES"):
        scaling.subsets(MeshConfig(), 1)


def test_the_efficiency_is_the_rate_of_a_device_against_the_smallest_size() -> None:
    times = {2: Quantity(unit="s", rounds=((1.0,),)), 4: Quantity(unit="s", rounds=((1.25,),))}
    first, last = scaling.points(times, batch_size=16, devices=4)
    assert (first["batch_size"], first["efficiency"], first["speed_up"]) == (8, 1.0, 1.0)
    assert (last["batch_size"], last["efficiency"]) == (16, pytest.approx(0.8))
    assert last["speed_up"] == pytest.approx(1.6)


def test_every_size_trains_on_its_share_of_the_batch(recipe) -> None:
    config = configs.from_file(str(recipe), SMALL)
    facts = DataFacts(train_size=60_000, num_classes=10)
    few = Repeats(warmup=1, rounds=1, steps=2)
    found = scaling.measure(config, facts, repeats=few, devices=jax.devices()[:2])
    assert [len(one.values) for one in found.measured.values()] == [2, 2]
    sizes = [(point["devices"], point["batch_size"]) for point in found.results["points"]]
    assert sizes == [(1, 8), (2, 16)]
    assert any("simulated" in note for note in found.notes)


def test_a_batch_that_the_devices_cannot_share_is_refused(recipe, refused) -> None:
    call = ("benchmark", "scaling", "--config", recipe, *FEW)
    assert "multiple of 8" in refused(*call, "--config.batch_size=12")
