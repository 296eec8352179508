"""Imports go down only, as the architecture says: every part knows those below it and no other."""

import ast
import pathlib

import pytest

from tests import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What each part may import of ours, besides itself.
ALLOWED = {
    "errors": set(),
    "plain_json": set(),
    "program_cache": set(),
    "stopping": set(),
    "text": set(),
    "workdir": {"errors", "plain_json"},
    "page": {"text", "workdir"},
    "report": {
        *("analysis", "checkpoints", "config", "evaluators", "models", "objectives", "page"),
        *("parallel", "text", "workdir", "__version__"),
    },
    "models": set(),
    "schema": set(),
    "duration": {"schema"},
    "data": {"errors", "models", "plain_json", "schema", "text"},
    "images": {"data", "models"},
    "objectives": {"data", "models", "schema"},
    "evaluators": {
        *("checkpoints", "data", "duration", "errors", "models", "objectives", "parallel"),
    },
    "parallel": {"errors", "models", "stopping", "text"},
    "checkpoints": {
        *("duration", "errors", "models", "plain_json", "schema", "text", "workdir"),
    },
    # The schema of a run knows the parts that it configures; only what runs them knows it.
    "config_formats": {"models", "schema"},
    "config": {
        *("checkpoints", "config_formats", "data", "duration", "evaluators", "models"),
        *("objectives", "parallel", "schema", "training"),
    },
    "training": {
        *("config", "duration", "errors", "plain_json", "schema", "stopping", "text", "workdir"),
        *("models", "data", "images", "objectives", "evaluators", "parallel", "checkpoints"),
        *("page", "report"),
    },
    "planning": {
        *("config", "data", "duration", "errors", "models", "objectives", "page", "parallel"),
        *("program_cache", "training", "workdir"),
    },
    "benchmark": {
        *("checkpoints", "config", "data", "page", "parallel", "plain_json", "planning"),
        *("stopping", "training"),
    },
    "analysis": {"models", "data", "parallel", "checkpoints", "text", "workdir"},
    "export": {"__init__", "checkpoints", "data", "errors", "models", "text", "workdir"},
    "__init__": {"checkpoints", "images", "models", "training"},
}
# Packages that are slow to import.
JAX = ("jax", "flax", "optax", "orbax", "grain")
OTHERS = ("scipy", "matplotlib", "tensorflow_datasets", "tensorflow", "torch")
AT_FIRST_USE = ("orbax", "grain", "cv2", "tensorboardX")
EVERYTHING = ("commands", "__main__")  # the edge of the program


def imported(path: pathlib.Path) -> set[str]:
    """The modules a file imports anywhere in it, `a.b.c` for `from a.b import c` too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files(*parts: str) -> list[pathlib.Path]:
    found = []
    for part in parts:
        folder = ROOT / part
        found += sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    return found


def test_every_part_has_a_rule() -> None:
    parts = {path.stem for path in (ROOT / "vit_jax").iterdir() if path.stem != "__pycache__"}
    assert parts <= set(ALLOWED) | set(EVERYTHING), "say in ALLOWED what the new part may import"


@pytest.mark.parametrize("part", [part for part in ALLOWED if part not in EVERYTHING])
def test_a_part_imports_only_what_is_below_it(part) -> None:
    for path in files(f"vit_jax/{part}"):
        for module in imported(path):
            names = module.split(".")
            if names[0] == "vit_jax" and len(names) > 1:
                assert names[1] in ALLOWED[part] | {part}, f"{path.relative_to(ROOT)}: {module}"


def test_recipes_import_the_config_and_names_of_the_zoo_only() -> None:
    for path in files("configs"):
        ours = {module for module in imported(path) if module.startswith("vit_jax")}
        for module in ours:
            assert module.startswith(("vit_jax.config", "vit_jax.models.zoo")), path


@pytest.mark.parametrize("module", ["torch", "tensorflow", "pickle"])
def test_no_other_framework_and_no_pickle(module) -> None:
    for path in files("vit_jax", "configs", "launch"):
        assert module not in {name.split(".")[0] for name in imported(path)}, path


def packages(program: str) -> set[str]:
    """The packages that a Python program has imported at its end, in a process of its own."""
    code = f"import sys\n{program}\nprint('imported', *sys.modules)"
    ended = cli.process(program=(*cli.PYTHON, "-c", code))
    assert ended.returncode == 0, ended.stderr
    return {name.partition(".")[0] for name in ended.stdout.splitlines()[-1].split()[1:]}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["predict"], ["evaluate"]])
def test_help_and_wrong_arguments_do_not_wait_for_imports(arguments) -> None:
    call = f"from vit_jax.__main__ import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert not packages(call) & {*JAX, *OTHERS, "numpy"}


@pytest.mark.parametrize("name", ["vit_jax.training.loop", "vit_jax.checkpoints.load"])
def test_training_and_loading_import_nothing_that_few_runs_need(name) -> None:
    found = packages(f"import {name}")
    assert "jax" in found and not found & {*OTHERS, *AT_FIRST_USE}
