"""The figures of full-size steps that are kept to notice when one changes."""

import importlib.util
import json
import pathlib

import pytest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "benchmarks/tpu_steps.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("tpu_steps", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_figure_that_changed_by_more_than_3_percent_is_shown_with_both_values(script) -> None:
    kept = {"made": "then", "ms": 100.0, "GiB": 3.0, "GB all-reduce data": 0.2, "remat": "lean"}
    same = kept | {"made": "now", "ms": 102.9, "GiB": 2.92}
    assert script.differences(same, kept) == []
    found = {"ms": 104.0, "GiB": 3.0, "GB all-gather fsdp": 0.1, "remat": "none"}
    slower, gathers, remat, sums = script.differences(found, kept)
    assert "ms is 104.0, and 100.0 is kept (then)" in slower
    assert "'lean'" not in remat and "remat is none, and lean is kept" in remat
    assert "all-gather fsdp is 0.1, and 0.0" in gathers and "all-reduce data is 0.0" in sums
    assert script.differences(found, {}) == ["no figures are kept: use --write"]


def test_kept_figures_belong_to_steps_that_the_script_has(script) -> None:
    assert set(json.loads(script.KEPT.read_text())) <= set(script.ENTRIES)
    assert all(script.config_of(one).batch_size for one in script.ENTRIES.values())
