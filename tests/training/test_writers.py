"""Writers: the metrics of a run in other places."""

import csv
import importlib.util
import json
import pathlib

import pytest

from tests import cli, runs
from vit_jax.training import writers
from vit_jax.training.metrics import MetricWriter
from vit_jax.workdir import lines


def table(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The rows of metrics.csv as lines of metrics.jsonl."""
    with open(workdir / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def log(workdir: pathlib.Path, start: int, stop: int, *kinds: writers.Writer) -> None:
    opened = lambda: [kind.open(workdir, config={"seed": 1}) for kind in kinds]  # noqa: E731
    with MetricWriter(workdir, start_step=start, others=opened) as writer:
        for step in range(start + 1, stop + 1):
            writer.write(step, {"loss": step / 8})
        writer.write(stop, {"eval_top1": 0.5})
        writer.flush()
        if kinds == (writers.Csv(),):
            assert table(workdir) == list(lines.read(workdir).good)


def test_a_table_has_the_lines_of_the_run_also_after_a_resume(tmp_path) -> None:
    log(tmp_path, 0, 6, writers.Csv())
    log(tmp_path, 4, 8, writers.Csv())
    assert [row["step"] for row in table(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert table(tmp_path)[-1] == {"step": 8, "eval_top1": 0.5}


def test_a_run_writes_to_the_writers_of_its_config_which_may_change(recipe, tmp_path) -> None:
    assert cli.train(recipe, tmp_path, "--config.writers=('csv',)") == 0
    assert list(map(runs.without_clock, table(tmp_path))) == runs.lines(tmp_path)
    longer = ("--config.total.steps=7", "--config.writers=()")
    assert cli.train(recipe, tmp_path, *longer) == 0
    assert max(row["step"] for row in table(tmp_path)) == 6


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_writer_that_is_not_installed_is_one_line(recipe, tmp_path, refused) -> None:
    given = ("--config", recipe, "--workdir", tmp_path / "run", "--config.writers=('wandb',)")
    assert "pip install vit_jax[wandb]" in refused("train", *given, folder=tmp_path)


def test_weights_and_biases_gets_every_line_and_a_resumed_run_goes_on(
    tmp_path, monkeypatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed: pip install vit_jax[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for start, stop in ((0, 3), (3, 5)):
        log(tmp_path, start, stop, writers.Wandb(project="test"))
    known = json.loads((tmp_path / "wandb.json").read_text())["id"]
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2 and all(file.name == f"run-{known}.wandb" for file in files)
    content = b"".join(file.read_bytes() for file in files)
    assert content.count(b"train/loss") >= 5 and b"eval/top1" in content
