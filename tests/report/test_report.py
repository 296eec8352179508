"""The report of runs: what it says, and what a browser makes of it."""

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import PIL.Image
import pytest

import vit_jax
from tests import cli, runs
from tests.compare import assert_close
from tests.models import tiny
from tests.report.browser import Seen
from vit_jax.commands import picture_files, pictures
from vit_jax.export import card
from vit_jax.page import document
from vit_jax.report import curves, facts, results, words
from vit_jax.report.run import _seconds
from vit_jax.training import reports
from vit_jax.workdir import lines, sessions

HOSTILE = '<script>alert(1)<∕script> $x$ "q" <b>b<∕b> é日'  # no slash: it is the name of a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs of other objectives; the first one has written its report."""
    folder = tmp_path_factory.mktemp("report")
    recipe = runs.write_recipe(folder)
    short = ("--config.total.steps=2", "--config.ema=0")
    assert cli.train(recipe, folder / HOSTILE, *short, "--config.report=True") == 0
    small = ("width=16", "depth=1", "mlp_dim=16", "num_heads=2")
    mae = ("--config.objective.name=mae", "--config.model.name=MAE-pretrain-Ti/14")
    mae += tuple(f"--config.model.decoder.{field}" for field in small)
    assert cli.train(recipe, folder / "mae", *short, *mae) == 0
    taught = ("--config.objective.name=distillation", "--config.model.name=DeiT-distilled-Ti/14")
    taught += (f"--config.objective.teacher={folder / HOSTILE}",)
    assert cli.train(recipe, folder / "taught", *short, *taught) == 0
    return folder


@pytest.fixture(scope="module")
def three(folder):
    return reports.read([str(folder / name) for name in (HOSTILE, "mae", "taught")])


def copy(run, there, **fields):
    """A copy of a run with other fields of its config."""
    shutil.copytree(run, there, ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    config = there / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    return there


def test_a_browser_shows_runs_of_other_objectives_with_pictures(
    folder, printed, tmp_path, monkeypatch
) -> None:
    some = ("filters", "positions", "predictions")  # the others take longer
    monkeypatch.setattr(pictures, "PICTURES", {name: pictures.PICTURES[name] for name in some})
    page = tmp_path / "page.html"
    named = [folder / name for name in (HOSTILE, "mae", "taught")]
    # Untrusted numbers in metrics.jsonl too: the name of a metric becomes a title and a label.
    metric = 'eval_</script><script>console.error("run")</script><i>'
    with (folder / "mae" / lines.NAME).open("a") as file:
        file.write(json.dumps({"step": 2, metric: 1.0}) + "\n")
    assert printed("report", *named, "-o", page) == f"{page}\n"
    assert page.stat().st_size < 5e6
    seen = Seen(page, tmp_path)
    assert not seen.console
    charts, drawn = seen.charts
    assert charts == drawn > 12
    there = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="(\w[^"]*)"', seen.dom)
    titles = [title for _, title in there]
    classifier = ["Filters", "Positions", "Predictions"]
    assert titles == [*classifier, *classifier[:2], *classifier]
    for data, _ in there:
        PIL.Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert "&lt;script&gt;alert(1)&lt;∕script&gt; $x$" in seen.dom
    bands = seen.pixels[:4000].reshape(40, -1, 3)
    assert (bands.std(axis=1).max(axis=1) > 3).mean() > 0.9, "the page is blank"


def test_a_run_ends_with_its_report_and_the_command_that_repeats_it(folder, three) -> None:
    run = three[0]
    text = (folder / HOSTILE / "report.html").read_text()
    assert "Results of the held-out images (5,000 images)" in text and "<img" not in text
    assert not (folder / "mae" / "report.html").exists()
    (command,) = facts.commands(run)
    assert command.startswith("python -m vit_jax train --config ") and "report=True" in command
    found = facts.of(run)
    assert found["length"] == "2 of 2 steps, 0.0016 epochs, batch 16, seed 0"
    assert found["objective"] == "classification"
    hours = run.wall_seconds * run.machine["devices"] / 3600  # of all 8
    assert f"; {hours:.3g} device-hours" in found["time"]
    assert "jax 0." in found["machine"] and "data 8" in found["mesh"]
    assert 0 < run.step_seconds <= run.wall_seconds, "short runs have a length too"
    assert facts.warnings(run) == []
    assert run.main == ["eval_top1", "eval_loss"]


def test_a_run_on_some_images_of_each_class_is_counted_in_these(recipe, tmp_path) -> None:
    some = ("--config.data.per_class=3", "--config.total.epochs=1.6", "--config.batch_size=16")
    assert cli.train(recipe, tmp_path / "run", *some) == 0
    (run,) = reports.read([str(tmp_path / "run")])
    assert (run.train_size, run.eval_size) == (30, 5_000)
    assert facts.of(run)["length"] == "3 of 3 steps, 1.6 epochs, batch 16, seed 0"
    assert "30 training images" in " ".join(facts.of(run).values())
    data = card.of_run(tmp_path / "run", config_digest="", step=None)["data"]
    described = {split: (of["name"], of["images"]) for split, of in data.items()}
    assert described == {"train": ("embedded", 30), "eval": ("embedded", 5_000)}


def test_a_resumed_run_has_its_sessions_and_both_commands(recipe, tmp_path) -> None:
    for steps in (2, 3):
        assert cli.train(recipe, tmp_path / "run", f"--config.total.steps={steps}") == 0
    (run,) = reports.read([str(tmp_path / "run")])
    assert [session["step"] for session in run.sessions] == [0, 2]
    assert run.wall_seconds == sum(map(_seconds, run.sessions))
    later = dataclasses.replace(run, sessions=run.sessions[1:])
    assert later.wall_seconds == 0, "an earlier version recorded no session of the first steps"
    assert all(session["began"] <= session["ended"] for session in run.sessions)
    assert [command[-1] for command in facts.commands(run)] == ["2", "3"]
    assert run.spent.keys() == {"data", "compilation", "evaluations", "checkpoints"}
    for part, seconds in run.spent.items():
        assert seconds == sum(session["seconds"][part] for session in run.sessions)
    assert 0 < sum(run.spent.values()) <= run.wall_seconds + 0.1, "the clocks are rounded"
    assert "waiting for data" in facts.of(run)["time"]
    assert all(0 <= share <= 1 for _, share in run.points("data_wait"))
    damaged = [run.sessions[0], run.sessions[1] | {"seconds": {"data": "long"}}]
    assert dataclasses.replace(run, sessions=damaged).spent == {}


def test_a_report_that_cannot_be_drawn_fails_no_run(recipe, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "run" / "report.html").mkdir(parents=True)
    given = ("--config.total.steps=2", "--config.report=True")
    assert cli.train(recipe, tmp_path / "run", *given) == 0
    assert "report.html could not be written: " in capsys.readouterr().err
    monkeypatch.setattr(document, "is_installed", lambda: False)
    assert document.INSTALL in reports.at_the_end(tmp_path / "run")


def test_an_unfinished_run_and_damaged_lines_are_said(folder, tmp_path) -> None:
    there = copy(folder / "taught", tmp_path / "run")
    total = json.loads((there / "config.json").read_text())["total"] | {"steps": 9}
    there = copy(there, tmp_path / "longer", total=total)
    with (there / lines.NAME).open("a") as file:
        file.write("{broken\n")
    (run,) = reports.read([str(there)])
    assert facts.warnings(run) == [
        "the run is not finished: 2 of 9 steps",
        "metrics.jsonl: 1 line is damaged and left out",
    ]
    (there / lines.NAME).unlink()
    (there / "sessions.json").write_text('{"sessions": [{"machine": 3}, 4]}')
    (run,) = reports.read([str(there)])
    assert facts.warnings(run) == ["the run has logged no metrics"]
    assert "machine" not in facts.of(run) and curves.of_run(run) == {}
    (command,) = facts.commands(run)
    assert command.endswith(f"{there}/config.json {there}-again")


def test_runs_are_sorted_and_seeds_are_averaged(folder, tmp_path) -> None:
    """Two seeds, of which the first is lucky, and a run with a better rate and another seed."""
    optimizer = json.loads((folder / "taught" / "config.json").read_text())["optimizer"]
    for name, seed, rate, top1 in (("a", 0, 1e-3, 0.9), ("b", 1, 1e-3, 0.5), ("c", 2, 2e-3, 0.8)):
        changed = {"seed": seed, "optimizer": optimizer | {"learning_rate": rate}}
        there = copy(folder / "taught", tmp_path / name, **changed)
        line = {"step": 2, "eval_loss": 1.0, "eval_top1": top1}
        (there / lines.NAME).write_text(json.dumps(line) + "\n")
    found = reports.read([str(tmp_path / name) for name in "abc"])
    assert [row[:3] for row in results.sorted_runs(found)] == [
        ["run", "top-1", "loss"],
        *(["a", "90.00%", "1"], ["c", "80.00%", "1"], ["b", "50.00%", "1"]),
    ]
    groups = {"slow": found[:2], "fast": found[2:]}
    assert [list(row) for row in results.ablation(groups)] == [
        ["optimizer.learning_rate", "seeds", "top-1", "loss"],
        ["0.002", "1", "80.00%", "1"],
        ["0.001", "2", "70.00% ± 28.28", "1 ± 0"],
    ]
    assert [list(row) for row in results.differing(found)] == [
        ["field", "a", "b", "c"],
        ["seed", "0", "1", "2"],
        ["optimizer.learning_rate", "0.001", "0.001", "0.002"],
    ]
    assert "Held-out top-1" in curves.of_groups(groups)


def test_severities_are_a_table(folder, tmp_path) -> None:
    there = copy(folder / "taught", tmp_path / "run")
    names = ("top1", "top1_blur", "top1_blur_1", "top1_blur_5", "top1_jpeg_quality_1")
    line = {"step": 2} | {f"eval_corrupt/{name}": i / 8 for i, name in enumerate(names)}
    (there / lines.NAME).write_text(json.dumps(line) + "\n")
    (run,) = reports.read([str(there)])
    tables = results.of_run(run)
    assert [row[0] for row in tables["Results of corrupt"]] == ["metric", "top-1", "top-1 blur"]
    assert tables["corrupt: top-1 by corruption"] == [
        ["severity", "1", "5"],
        ["blur", "25.00%", "37.50%"],
        ["jpeg_quality", "50.00%", ""],
    ]


@pytest.mark.parametrize(
    ("devices", "seconds", "rate", "metric"),
    [
        ('"8"', "1.0", 100.0, "loss"),
        ("1" + 400 * "0", "1.0", 100.0, "loss"),
        ("8", "1" + 400 * "0", 100.0, "loss"),
        ("8", "1" + 5000 * "0", 100.0, "loss"),
        ("8", "1e308", 100.0, "loss"),  # each of the two sessions
        ("8", "1.0", 1e-320, "loss"),
        ("8", "1.0", 100.0, f"eval_c/top1_blur_{5000 * '9'}"),
    ],
    ids=["text", "devices", "seconds", "digits", "sum", "rate", "severity"],
)
def test_damaged_numbers_are_left_out(folder, tmp_path, devices, seconds, rate, metric) -> None:
    there = copy(folder / "taught", tmp_path / "run")
    record = there / sessions.FILE
    (session,) = json.loads(record.read_text())["sessions"]
    session["machine"]["devices"], session["seconds"]["data"] = "DEVICES", "SECONDS"
    text = json.dumps({"sessions": [session, session]})
    record.write_text(text.replace('"DEVICES"', devices).replace('"SECONDS"', seconds))
    with (there / lines.NAME).open("a") as file:
        file.write(json.dumps({"step": 9, "images_per_second": rate, metric: 0.5}) + "\n")
    (run,) = reports.read([str(there)])
    found = facts.of(run)
    assert results.of_run(run)
    assert ("machine" in found) == (devices == "8")
    assert ("device-hours" in found.get("time", "")) == (devices == "8" and rate == 100.0)
    assert bool(run.spent) == (seconds == "1.0")


def test_a_chart_of_too_many_metrics_says_how_many_are_left_out(folder, tmp_path) -> None:
    there = copy(folder / "taught", tmp_path / "run")
    names = [f"eval_x/top1_{i}shot" for i in range(curves.MOST_CURVES + 3)]
    (there / lines.NAME).write_text(json.dumps({"step": 2} | dict.fromkeys(names, 0.5)) + "\n")
    assert "x: accuracy (3 more in the tables)" in curves.of_run(reports.read([str(there)])[0])


def test_long_curves_are_means_of_neighbours() -> None:
    values = np.arange(2 * curves.MOST_POINTS + 1.0)
    found = curves._averaged(values)
    assert len(found) <= curves.MOST_POINTS and found[0] == 1.0 and found[-1] == values[-1]
    assert_close(curves._smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3), [1.5, 3, 3, 3])


def test_names_of_metrics_are_words() -> None:
    assert words.metric("eval_near/ema_top1_10shot") == "near: top-1 10shot, average"
    assert words.metric("eval_ece") == "calibration error (ECE)"
    assert words.duration(59.6) == "1 min 00 s" and words.duration(7300) == "2 h 01 min"


def test_pictures_that_are_too_large_together_become_smaller() -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 4))
    figure.subplots().imshow(np.random.default_rng(0).random((300, 300, 3)))
    (url,) = picture_files.embedded([("noise", figure)], most=20_000).values()
    data = base64.b64decode(url.removeprefix("data:image/webp;base64,"))
    assert len(data) <= 20_000 and PIL.Image.open(io.BytesIO(data)).width > 50


def test_wrong_runs_are_one_line_and_write_nothing(folder, refused, tmp_path) -> None:
    vit_jax.save(tiny.model(), tmp_path / "m.npz")
    out = ("-o", tmp_path / "page.html")
    said = refused("report", tmp_path / "m.npz", *out, folder=tmp_path)
    assert "is not a run: `figures --html` draws" in said
    vit_jax.save(tiny.model(), tmp_path / "saved")
    said = refused("report", tmp_path / "saved", *out, folder=tmp_path)
    assert "saved was converted or saved, not trained" in said
    assert "it has no model.json" in refused("report", tmp_path / "no", *out, folder=tmp_path)
    mae = folder / "mae"
    assert "give a file, -o" in refused("report", mae, folder / "taught", folder=folder)
    assert "named twice" in refused("report", mae, f"{mae}/", *out, folder=tmp_path)
