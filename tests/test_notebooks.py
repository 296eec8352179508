"""The notebooks run from the first cell to the last, with tiny settings, and are kept small."""

import json
import pathlib
from typing import Any

import jax
import matplotlib
import pytest
from matplotlib.figure import Figure

from tests.runs import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: pathlib.Path) -> list[tuple[str, list[str]]]:
    """The code of every cell, and its tags."""
    found = json.loads(path.read_text())["cells"]
    return [
        ("".join(cell["source"]), cell["metadata"].get("tags", []))
        for cell in found
        if cell["cell_type"] == "code"
    ]


def executed(name: str, **parameters: Any) -> dict[str, Any]:
    """The names that a notebook leaves, with these values of its cell of parameters."""
    names: dict[str, Any] = {"__name__": "__main__"}
    # As in a user's program: Optax promotes types.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for source, tags in cells(ROOT / "notebooks" / f"{name}.ipynb"):
            exec(compile(source, name, "exec"), names)
            if "parameters" in tags:
                assert parameters.keys() <= names.keys()
                names |= parameters
    return names


@pytest.fixture(autouse=True)
def without_a_screen(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matplotlib.rcParams, "backend", "agg", raising=False)


def test_notebooks_are_small_and_have_no_outputs() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        assert path.stat().st_size < 300_000
        code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def test_photographs_are_fine_tuned() -> None:
    names = executed("fine_tune_your_photographs", epochs=1.0, examples=64)
    assert names["metrics"]["count"] == 200
    assert len(names["predicted"]) == 16 and isinstance(names["figure"], Figure)


def test_a_vit_is_looked_into() -> None:
    names = executed("look_inside_a_vit", steps=2)
    assert names["maps"].shape == (6, 49)
    assert names["sums"].shape == (4, 3)


def test_an_own_loop_trains_and_its_model_is_saved() -> None:
    names = executed("your_own_training_loop", steps=20)
    assert names["losses"][-1] < names["losses"][0] and names["top1"] > 0.3
    assert names["again"].class_names == names["trained"].class_names
