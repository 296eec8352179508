"""`benchmark step` on the tiny recipe: what it reports, and how it ends."""

import contextlib
import io
import json
import pathlib
import re

import jax
import pytest

from tests import cli
from vit_jax.benchmark import training
from vit_jax.commands import configs
from vit_jax.data.record import DataFacts
from vit_jax.planning import designed

FEW = ("--warmup", "1", "--rounds", "2", "--steps", "3")


@pytest.fixture(scope="module")
def prepared(recipe) -> training.Training:
    config = configs.from_file(str(recipe), [])
    return training.Training(config, DataFacts(train_size=60_000, num_classes=10))


@pytest.fixture(scope="module")
def reported(recipe, tmp_path_factory) -> pathlib.Path:
    """A folder with the JSON and the page of a benchmark of the step."""
    folder = tmp_path_factory.mktemp("reported")
    call = ("--peak", "0.5", "--json", "--html", folder / "sub" / "step.html")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert cli.run("benchmark", "step", "--config", recipe, *FEW, *call) == 0
    (folder / "step.json").write_text(output.getvalue())
    return folder


def changed(folder: pathlib.Path, path: pathlib.Path, *, times: float) -> pathlib.Path:
    """The JSON of the benchmark as if every step had taken so many times as long."""
    content = json.loads((folder / "step.json").read_text())
    step = content["measured"]["step"]
    step["rounds"] = [[times * value for value in part] for part in step["rounds"]]
    path.write_text(json.dumps(content))
    return path


def test_every_step_trains_and_has_its_time(prepared) -> None:
    before = int(prepared.state["step"])
    times = prepared.run(5)
    assert len(times) == 5 and min(times) > 0
    assert int(prepared.state["step"]) == before + 6  # one more step begins the first interval


def test_the_batch_is_what_the_design_asks_for(prepared) -> None:
    batch = training.synthetic(prepared.design, prepared.mesh, classes=10)
    for name, shape in prepared.design.batch.items():
        found = batch[name]
        assert (found.shape, found.dtype, found.sharding) == (
            shape.shape,
            shape.dtype,
            shape.sharding,
        )
    assert int(batch["image"].max()) > 250 and set(batch["label"].tolist()) <= set(range(10))


def test_the_results_follow_from_the_times_and_the_flops_of_a_plan(prepared, reported) -> None:
    content = json.loads((reported / "step.json").read_text())
    seconds, results = content["measured"]["step"]["median"], content["results"]
    assert [len(part) for part in content["measured"]["step"]["rounds"]] == [3, 3]
    assert results["images_per_second"] == pytest.approx(16 / seconds)
    flops = designed.facts(prepared.design).flops
    assert results["model_flops"] == flops > 0
    assert results["mfu"] == pytest.approx(flops / seconds / (jax.device_count() * 0.5e12))
    assert results["predicted_seconds"] is None  # a plan knows no CPU
    measured = content["measured"]
    assert measured["program_memory"]["median"] > 4 * results["parameters"]
    assert measured["process_peak"]["median"] > 2**26
    assert any("whole process" in note for note in content["notes"])


def test_the_page_has_every_measurement_and_needs_no_network(reported) -> None:
    pytest.importorskip("plotly", reason="pip install vit_jax[report]")
    text = (reported / "sub" / "step.html").read_text().partition("</head>")[2]
    assert not re.search(r"(src|href)=.?https?:", text)
    assert all(word in text for word in ("step, every measurement", "round 2", "MFU"))


def test_a_regression_ends_with_code_3_and_is_named(recipe, reported, tmp_path, capsys) -> None:
    old = changed(reported, tmp_path / "old.json", times=0.001)
    call = ("benchmark", "step", "--config", recipe, *FEW, "--compare", old)
    assert cli.run(*call, "--config.data.threads=1") == 3
    output = capsys.readouterr().out
    assert re.search(r"^step .* worse$", output, re.MULTILINE)
    assert "config.data.threads was 2 and is 1" in output


def test_a_faster_step_ends_with_code_0(recipe, reported, tmp_path, printed) -> None:
    old = changed(reported, tmp_path / "old.json", times=1000)
    call = ("benchmark", "step", "--config", recipe, *FEW, "--compare", old, "--json")
    found = json.loads(printed(*call))["comparison"]
    assert found["changes"]["step"]["verdict"] == "better" and not found["regressed"]
    assert found["changes"]["program_memory"]["verdict"] == "same"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: WHAT"),
        (["speed"], "invalid choice: 'speed'"),
        (["step"], "the following arguments are required: --config"),
        (["step", "--config", "none.py"], "no recipe at none.py"),
        (["step", "--config", "RECIPE", "--rounds", "0"], "give a positive whole number"),
        (["step", "--config", "RECIPE", "--workdir", "x"], "unknown arguments"),
        (["step", "--config", "RECIPE", "--compare", "none.json"], "none.json cannot be read"),
        (["step", "--config", "RECIPE", "--config.batch_size=3"], "multiple of 8"),
        (["step", "--config", "RECIPE", "--config.init_from=x", "--config.model.name="], "name"),
    ],
)
def test_bad_input_is_one_line(recipe, arguments, message, refused) -> None:
    given = [recipe if text == "RECIPE" else text for text in arguments]
    assert message in refused("benchmark", *given)


def test_other_figures_are_refused_before_anything_is_compiled(
    recipe, reported, refused, tmp_path
) -> None:
    call = ("benchmark", "step", "--config", recipe, "--compare", reported / "step.json")
    assert "batch_size is 16 there and 32 here" in refused(*call, "--config.batch_size=32")
    broken = tmp_path / "broken.json"
    broken.write_text((reported / "step.json").read_text()[:500])
    assert "broken.json: it is not JSON" in refused(*call[:-1], broken)
