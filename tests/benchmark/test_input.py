"""`benchmark input` on the tiny recipe."""

import json
import pathlib

import pytest

from tests import cli
from vit_jax.benchmark import report
from vit_jax.benchmark.report import Measured
from vit_jax.benchmark.samples import Quantity
from vit_jax.commands import configs
from vit_jax.parallel import machine

FEW = ("--warmup", "1", "--rounds", "2", "--batches", "3")


def step_json(folder: pathlib.Path, recipe: pathlib.Path, *, seconds: float, **other) -> object:
    """The JSON of a step of this recipe that takes so long."""
    step = Quantity(unit="s", rounds=((seconds,),))
    found = report.make(
        Measured(measured={"step": step}, results={}),
        benchmark="step",
        recipe=str(recipe),
        config=configs.from_file(str(recipe), []),
        machine={**machine.facts(), **other},
        settings={},
    )
    path = folder / "step.json"
    path.write_text(json.dumps(report.to_json(found)))
    return path


def test_rates_follow_from_the_times_of_batches_and_their_cpu_time(recipe, printed) -> None:
    content = json.loads(printed("benchmark", "input", "--config", recipe, *FEW, "--json"))
    measured, results = content["measured"], content["results"]
    assert (content["format"], content["benchmark"]) == (1, "input")
    assert results["images_per_second"] == pytest.approx(16 / measured["batch"]["median"])
    work = measured["cpu_time_of_an_image"]["median"]
    assert results["images_per_second_per_core"] == pytest.approx(1 / work)
    assert results["cores"] == machine.host_cores() and results["broken_images"] == 0
    assert "input_bound" not in results


@pytest.mark.parametrize(("seconds", "bound"), [(1e-9, 1.0), (1e3, 0.0)])
def test_a_step_faster_than_its_input_is_bound_by_it(
    seconds, bound, recipe, printed, tmp_path
) -> None:
    step = step_json(tmp_path, recipe, seconds=seconds)
    call = ("benchmark", "input", "--config", recipe, *FEW, "--json", "--step", step)
    assert json.loads(printed(*call))["results"]["input_bound"] == pytest.approx(bound, abs=1e-3)


def test_a_step_of_another_machine_is_refused(recipe, refused, tmp_path) -> None:
    step = step_json(tmp_path, recipe, seconds=1.0, host_cores=1000)
    message = refused("benchmark", "input", "--config", recipe, "--step", step)
    assert "--step is of another machine: host_cores 1000 there" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "3"], "unknown arguments"),
        (["--config.data.source=image_folder", "--config.data.path=none"], "none"),
        (["--step", "none.json"], "none.json cannot be read"),
    ],
)
def test_bad_input_is_one_line(recipe, arguments, message, refused) -> None:
    assert message in refused("benchmark", "input", "--config", recipe, *arguments)


def test_too_many_broken_images_end_with_code_1(recipe, tmp_path, capsys) -> None:
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(8):
            (tmp_path / "train" / name / f"{number}.jpg").write_bytes(b"no image")
    data = ("--config.data.source=image_folder", f"--config.data.path={tmp_path}")
    assert cli.run("benchmark", "input", "--config", recipe, *FEW, *data) == 1
    assert "broken" in capsys.readouterr().err
