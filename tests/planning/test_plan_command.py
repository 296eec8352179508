"""The command `plan`, with the TPU compiler where it is installed."""

import argparse
import dataclasses
import importlib.util
import json
import pathlib

import pytest

from tests import cli
from vit_jax.benchmark import report
from vit_jax.benchmark.report import Measured
from vit_jax.commands import configs, planning
from vit_jax.parallel import machine
from vit_jax.planning import compiling, job, topologies

RECIPE = """
from vit_jax.config import default_config

def get_config():
    config = default_config()
    config.model.name, config.model.depth, config.model.dtype = "Ti/16", 2, "bfloat16"
    config.model.remat, config.image_size = "none", (64, 64)
    config.batch_size = 64
    config.data.source, config.data.name = "tfds", "imagenet2012"
    return config
"""
needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed: pip install vit_jax[tpu]",
)


@pytest.fixture
def recipe(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v5e-7"], "nearest"),
        (["--topology", "v5e:32x32"], "largest slice of v5e"),
        (["--topology", "v5e-8", "--config.data.name=mine"], "--num-classes"),
        (
            ["--topology", "v5e-8", "--scaling", "4"],
            "--scaling 4 is less than the 8 chips of v5e-8",
        ),
        (["--topology", "v5e-8", "--config.init_from=x", "--config.model.name="], "model.name"),
    ],
)
def test_bad_input_is_one_line(recipe, arguments, message, capsys) -> None:
    assert cli.run("plan", "--config", recipe, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_missing_compiler_says_how_to_get_it(recipe, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(
        compiling.job_lib, "versions", lambda platform: {"jax": "1.2.3", "libtpu": ""}
    )
    assert cli.run("plan", "--config", recipe, "--topology", "v5e-8") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install vit_jax[tpu]" in line


def test_a_missing_cuda_compiler_says_how_to_get_it_without_cuda(
    recipe, monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {"jax": "1.2.3", job.CUDA[0]: ""}
    monkeypatch.setattr(compiling.job_lib, "versions", lambda platform: found)
    assert cli.run("plan", "--config", recipe, "--topology", "h100-8") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install --no-deps 'jax-cuda13-plugin==1.2.3.*'" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "it is not JSON"),
        ('{"format": 1, "benchmark": "step"}', "not of benchmark input"),
        ('{"format": 7, "benchmark": "input"}', "format 7"),
    ],
)
def test_a_file_that_is_no_benchmark_of_the_input_is_one_line(
    recipe, tmp_path, content, message, capsys
) -> None:
    path = tmp_path / "input.json"
    path.write_text(content)
    call = ("plan", "--config", recipe, "--topology", "v5e-8", "--input-json", path)
    assert cli.run(*call) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and str(path) in line


def test_the_rate_and_the_cores_of_a_host_come_from_the_benchmark_of_its_input(
    recipe, tmp_path, capsys
) -> None:
    config = configs.from_file(str(recipe), ())
    made = report.make(
        Measured(measured={}, results={"images_per_second_per_core": 250.0, "cores": 6}),
        benchmark="input",
        recipe="other.py",
        config=config,
        machine=machine.facts(),
        settings={},
    )
    path = tmp_path / "input.json"
    path.write_text(json.dumps(report.to_json(made)))
    options = argparse.Namespace(input_json=path, decoded=0.0)
    decoding = planning._decoding(options, config)
    assert decoding.of_host(topologies.parse("v5e-16")) == 250 * 112
    unknown = dataclasses.replace(topologies.parse("h100-8").chip, cores=())
    node = dataclasses.replace(topologies.parse("h100-8"), chip=unknown)
    assert decoding.of_host(node) == 250 * 6
    assert not capsys.readouterr().err
    planning._decoding(options, dataclasses.replace(config, image_size=(96, 96)))
    assert "other.py" in capsys.readouterr().err


@needs_compiler
def test_a_compiler_of_another_jax_is_refused(monkeypatch) -> None:
    found = {"jax": "1.2.3", "libtpu": "0.0.1"}
    monkeypatch.setattr(compiling.job_lib, "versions", lambda platform: found)
    with pytest.raises(ValueError, match=r"libtpu 0.0.1 does not fit jax 1.2.3.*pip install"):
        compiling.check_installed()


@needs_compiler
def test_a_plan_reads_memory_flops_and_collectives(recipe, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    call = ("plan", "--config", recipe, "--topology", "v5e-8", "--price", "2", "--json")
    assert cli.run(*call) == 0
    first = capsys.readouterr().out
    (plan,) = json.loads(first)["plans"]
    assert 1 <= plan["flops_ratio"] == pytest.approx(plan["traced_flops_ratio"], rel=0.01)
    assert plan["memory"]["fits"] and 0 < plan["memory"]["peak"] < plan["memory"]["usable"]
    reduced = sum(c["bytes"] for c in plan["collectives"] if c["kind"] == "all-reduce")
    assert reduced == pytest.approx(2 * plan["parameters"], rel=0.3)  # gradients in bfloat16
    assert {c["axes"] for c in plan["collectives"]} == {"data"}
    assert plan["run"]["cost"] == pytest.approx(2 * plan["run"]["chip_hours"])
    monkeypatch.setattr(compiling._Worker, "__init__", None)  # nothing is compiled again
    assert cli.run(*call) == 0
    assert capsys.readouterr().out == first


@needs_compiler
def test_a_plan_compiles_again_what_was_removed_from_the_cache(
    recipe, monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    call = ("plan", "--config", recipe, "--topology", "v5e-1", "--json")
    assert cli.run(*call) == 0
    (text,) = compiling.cache_folder().glob("*.hlo.gz")
    text.unlink()
    assert cli.run(*call, "--config.log_every.steps=7") == 0  # another key, the same program
    assert text.exists()


@needs_compiler
def test_a_mesh_that_does_not_fit_the_topology_is_one_line(
    recipe, monkeypatch, tmp_path, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    call = ("plan", "--config", recipe, "--topology", "v5e-8", "--config.mesh.fsdp=3")
    assert cli.run(*call) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not divide 8 devices" in line


@pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("jax_cuda13_plugin", "jax_cuda12_plugin"))),
    reason="the CUDA compiler is not installed: pip install vit_jax[cuda13]",
)
def test_a_plan_for_gpus_needs_no_gpu(recipe, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    call = ("plan", "--config", recipe, "--topology", "2xh100-2", "--json")
    assert cli.run(*call) == 0
    found = json.loads(capsys.readouterr().out)
    (plan,) = found["plans"]
    assert plan["flops_ratio"] == pytest.approx(plan["traced_flops_ratio"], rel=0.02)
    assert {(c["devices"], c["link"]) for c in plan["collectives"]} == {(4, "DCN")}
    assert plan["seconds"] >= plan["time"]["bound"]
    assert "the least that the chip allows" in found["predicted"]
