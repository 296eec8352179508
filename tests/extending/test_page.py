"""docs/extending.md is followed word for word in a copy of the package."""

import json
import pathlib
import re
import shlex
import shutil
import sys

import pytest

from tests import cli, runs

PAGE = (runs.ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# Runs each command as a user would, but in one process, because imports take seconds.
PROGRAM = """
import json, sys
import pytest
code = pytest.main(["-q", "tests/objectives/test_brightness.py"])
from vit_jax.__main__ import main
for command in json.load(sys.stdin):
    code = main(command)
    assert code == 0, (command, code)
sys.exit(code)
"""


def followed(folder: pathlib.Path) -> list[list[str]]:
    """Writes the files of the page, adds its lines to tables, and returns its commands."""
    commands = []
    for language, text in BLOCKS:
        if not language:
            commands += [shlex.split(line) for line in text.splitlines()]
            continue
        first, _, rest = text.partition("\n")
        path = folder / first.removeprefix("# ")
        assert path.suffix == ".py", f"a block of the page does not begin with its file: {first}"
        if language == "python":
            assert not path.exists(), f"{path} is there already"
            path.write_text(rest)
        else:
            path.write_text(patched(path.read_text(), rest))
    return commands


def patched(source: str, diff: str) -> str:
    """A file with the lines of a diff: imports go first, other lines after their context."""
    lines = source.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("from vit_jax"))
    for line in diff.splitlines():
        if line.startswith("+"):
            lines.insert(place, line[1:])
            place += 1
        else:
            assert lines.count(line[1:]) == 1, f"not a line of the file, or of several: {line}"
            place = lines.index(line[1:]) + 1
    return "\n".join([*lines, ""])


@pytest.fixture
def copy(tmp_path) -> pathlib.Path:
    """A copy of the files that the page changes."""
    for part in ("vit_jax", "configs", "launch", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "old_runs")
        shutil.copytree(runs.ROOT / part, tmp_path / part, ignore=ignored)
    shutil.copy(runs.ROOT / "pyproject.toml", tmp_path)
    tiny = f'"""The recipe that the page names, but tiny."""\n{runs.RECIPE}'
    (tmp_path / "configs" / "quickstart.py").write_text(tiny)
    return tmp_path


def test_the_page_works_when_it_is_followed(copy) -> None:
    commands = followed(copy)
    assert all(command[:3] == ["python", "-m", "vit_jax"] for command in commands)
    done = cli.process(
        program=(*cli.PYTHON, "-c", PROGRAM),
        stdin=json.dumps([command[3:] for command in commands]),
        cwd=copy,
        settings={"PYTHONPATH": str(copy)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("error ", "wide spread ", "mixer ", "1 passed"):
        assert text in done.stdout


def test_the_files_of_the_page_are_in_the_style_of_the_package(copy) -> None:
    followed(copy)
    # Added imports are not in alphabetical order: I001.
    for check in (["check", "--ignore", "I001"], ["format", "--check"]):
        ruff = (sys.executable, "-m", "ruff", *check, "-q", "vit_jax", "configs")
        done = cli.process(program=ruff, cwd=copy)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", ["architecture.md", "extending.md"])
def test_the_files_that_a_page_names_are_there(page) -> None:
    text = (runs.ROOT / "docs" / page).read_text()
    links = {runs.ROOT / "docs" / link for link in re.findall(r"\]\(([^)]+)\)", text)}
    assert links and not [link for link in links if not link.exists()]
    lines = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    for _, part, held, tables, _ in lines:
        folder = runs.ROOT / "vit_jax" / part.strip(" `")
        inside = re.findall(r"`(\w+(?:\.py|/))`", held)
        assert folder.exists() and not [name for name in inside if not (folder / name).exists()]
        for table in re.findall(r"`(?:\w+\.)?([A-Z]+)`", tables):
            sources = [folder] if folder.is_file() else list(folder.rglob("*.py"))
            assert any(f"\n{table}: dict[str, " in file.read_text() for file in sources), table


def test_the_diagram_of_imports_has_every_part() -> None:
    text = (runs.ROOT / "docs" / "architecture.md").read_text()
    diagram = set(re.findall(r"\w+", text.partition("## Imports")[2].split("```")[1]))
    parts = {path.stem for path in (runs.ROOT / "vit_jax").iterdir()}
    apart = {"__init__", "__pycache__", "config_formats", "images"}  # beside config, of `data`
    assert not parts - diagram - apart
