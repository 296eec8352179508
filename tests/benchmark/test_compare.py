"""What a comparison calls a change, and what it refuses to compare."""

import dataclasses
import json

import numpy as np
import pytest

from vit_jax.benchmark import compare, report
from vit_jax.benchmark.report import Measured, Report
from vit_jax.benchmark.samples import Quantity, in_rounds, once
from vit_jax.config import default_config, resolve
from vit_jax.parallel import machine


def config(**fields):
    recipe = default_config()
    recipe.model.name = "Ti/16"
    for name, value in fields.items():
        recipe[name] = value
    return resolve(recipe)


def times(*, median: float, spread: float, seed: int, drift: float = 0.0) -> Quantity:
    """Ten steps in each of five rounds; `drift` moves whole rounds."""
    random = np.random.default_rng(seed)
    rounds = median * (1 + drift * random.standard_normal((5, 1)))
    values = rounds * (1 + spread * random.standard_normal((5, 10)))
    return Quantity(unit="s", rounds=in_rounds(list(values.ravel()), rounds=5))


def made(**measured: Quantity) -> Report:
    return report.make(
        Measured(measured=measured, results={"mfu": None}, notes=["a note"]),
        benchmark="step",
        recipe="recipe.py",
        config=config(),
        machine={**machine.facts(), "load": 0.0},
        settings={"steps": 10},
    )


def verdict(old: Quantity, new: Quantity, *, tolerance: float = 0.0) -> str:
    (change,) = compare.changes(made(step=old), made(step=new), tolerance=tolerance)
    return change.verdict


@pytest.mark.parametrize("seed", range(4))
def test_the_same_speed_is_no_change_however_much_it_scatters(seed) -> None:
    old = times(median=0.1, spread=0.1, seed=seed, drift=0.05)
    assert verdict(old, times(median=0.1, spread=0.1, seed=seed + 100, drift=0.05)) == "same"


def test_a_small_change_counts_if_the_steps_scatter_less() -> None:
    old = times(median=0.1, spread=0.002, seed=0)
    slower, faster = (times(median=m, spread=0.002, seed=1) for m in (0.103, 0.097))
    assert verdict(old, slower) == "worse"
    assert verdict(old, faster) == "better"
    assert verdict(old, slower, tolerance=0.05) == verdict(old, faster, tolerance=0.05) == "same"


def test_a_round_that_was_disturbed_is_no_regression() -> None:
    old = times(median=0.1, spread=0.01, seed=0)
    new = times(median=0.1, spread=0.01, seed=1)
    disturbed = (tuple(3 * value for value in new.rounds[0]), *new.rounds[1:])
    assert verdict(old, dataclasses.replace(new, rounds=disturbed)) == "same"


def test_memory_of_a_program_is_compared_exactly_and_one_time_is_not_judged() -> None:
    less, more = (once(size, unit="bytes", exact=True) for size in (1e9, 1.02e9))
    assert (verdict(less, more), verdict(more, less)) == ("worse", "better")
    assert verdict(less, more, tolerance=0.03) == "same"
    assert verdict(once(1.0, unit="s"), once(9.0, unit="s")) == "not judged"


def test_another_machine_is_refused_and_another_version_is_named() -> None:
    old, found = made(), machine.facts()
    assert compare.check(old, old.config, found) == []
    with pytest.raises(ValueError, match="another machine: device_kind 'TPU v5' there and 'cpu'"):
        kind = {**old.machine, "device_kind": "TPU v5"}
        compare.check(dataclasses.replace(old, machine=kind), old.config, found)
    versions = {**found["versions"], "jax": "0.1.2"}
    other = dataclasses.replace(old, machine={**old.machine, "versions": versions})
    (note,) = compare.check(other, old.config, found)
    assert note == f"jax was 0.1.2 and is {found['versions']['jax']}"


def test_a_machine_that_was_shared_at_the_earlier_measurement_is_named() -> None:
    old, found = made(), machine.facts()
    busy = dataclasses.replace(old, machine={**old.machine, "load": 9.0 * found["host_cores"]})
    (note,) = compare.check(busy, old.config, found)
    assert note.startswith("at the earlier measurement, the machine was shared")


def test_another_result_is_refused_and_another_way_to_it_is_named() -> None:
    old, found = made(), machine.facts()
    with pytest.raises(ValueError, match="another config: batch_size is 256 there and 8 here"):
        compare.check(old, config(batch_size=8), found)
    with pytest.raises(ValueError, match="another config: num_classes is None there and 20 here"):
        compare.check(old, old.config, found, settings={"num_classes": 20})
    (note,) = compare.check(old, config(compiler_options=("xla_a=1",)), found)
    assert note == "config.compiler_options was () and is ('xla_a=1',)"


def test_a_report_reads_back_equal(tmp_path) -> None:
    path, written = tmp_path / "a.json", made(step=times(median=0.1, spread=0.1, seed=0))
    path.write_text(json.dumps(report.to_json(written)))
    assert report.read(path, benchmark="step") == dataclasses.replace(
        written, notes=tuple(written.notes)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "it has format 2; this version reads format 1"),
        ({"benchmark": "input"}, "it is of benchmark input, not of benchmark step"),
        ({"machine": None}, "is not the JSON of a benchmark"),
        ({"measured": {"a": {"rounds": [[]], "unit": "s"}}}, "positive numbers in every round"),
        ({"measured": {"a": {"rounds": [[-1]], "unit": "s"}}}, "positive numbers in every round"),
        ({"measured": {"a": {"rounds": [["x"]], "unit": "s"}}}, "could not convert"),
        ({"measured": {"a": {"rounds": [[10**400]], "unit": "s"}}}, "OverflowError"),
        ({"measured": {"a": {"rounds": [[1]], "unit": "m", "judged": "no"}}}, "unknown unit"),
        ({"config": {"recipe": "", "fields": {"format": 1, "batch": 3}}}, "batch"),
    ],
)
def test_a_damaged_report_is_an_error_with_its_name(change, message, tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**report.to_json(made()), **change}))
    with pytest.raises(ValueError, match="a.json") as error:
        report.read(path, benchmark="step")
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "[" * 200])
def test_a_file_that_is_no_report_is_an_error_with_its_name(text, tmp_path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match="a.json"):
        report.read(tmp_path / "a.json", benchmark="step")
