"""The planned cost in the docstring of a recipe."""

import ast
import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("plan_recipes", ROOT / "scripts/plan_recipes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["plain_vit.py", "scaling.py"])  # one has line continuations
def test_the_cost_is_replaced_and_nothing_else_changes(script, name) -> None:
    source = (ROOT / "configs" / name).read_text()
    first = script.with_cost(source, script.paragraph(["first-cost"]))
    second = script.with_cost(first, script.paragraph(["second-cost"]))
    docstring = ast.get_docstring(ast.parse(second))
    assert "second-cost" in docstring and "first-cost" not in docstring
    assert script.with_cost(second, script.paragraph(["first-cost"])) == first
    assert all(len(line) <= script.WIDTH for line in second.splitlines())
    code, changed = (text.rpartition('"""')[2] for text in (source, second))
    text = source.split('"""')[1].partition(script.BEGINS)[0]
    assert code == changed and text.strip() in second
