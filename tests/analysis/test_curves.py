"""Curves of several runs: bands of seeds, and what the other runs differ in."""

import json
import shutil

import numpy as np
import pytest

from tests import cli, runs
from tests.compare import assert_close
from vit_jax.analysis import bands, curves
from vit_jax.analysis.contract import NoPicture


def lines(*values: float, steps=(10, 20, 30)):
    return [(step, {"loss": value}) for step, value in zip(steps, values, strict=False)]


def test_a_band_is_the_mean_and_the_range_at_the_steps_of_all_runs():
    found = bands.band([lines(3, 2, 1), lines(5, 2), lines(1, 5, steps=(10, 20))], "loss")
    np.testing.assert_array_equal(found.steps, [10, 20])
    assert_close(found.mean, [3, 3])
    assert_close(found.low, [1, 2])
    assert_close(found.high, [5, 5])
    assert not len(bands.band([lines(1)], "eval_loss").steps)


def test_runs_that_differ_in_the_seed_are_one_group():
    base = {"seed": 0, "optimizer.learning_rate": 0.1, "batch_size": 8}
    configs = {
        "a": base,
        "b": base | {"seed": 1},
        "c": base | {"optimizer.learning_rate": 0.2},
    }
    assert bands.groups(configs) == {
        "optimizer.learning_rate=0.1 (2 seeds)": ["a", "b"],
        "optimizer.learning_rate=0.2": ["c"],
    }
    assert bands.groups({"a": base, "b": base | {"seed": 1}}) == {"2 seeds": ["a", "b"]}


def test_runs_that_differ_in_many_fields_have_the_names_of_their_folders():
    one = {"seed": 0} | {f"x{i}": 0 for i in range(5)}
    other = {"seed": 0} | {f"x{i}": 1 for i in range(5)}
    assert list(bands.groups({"runs/a": one, "runs/b": other})) == ["runs/a", "runs/b"]


def test_groups_have_a_colour_each_and_bands_are_filled():
    drawn = curves.curves({"x=1 (2 seeds)": [lines(3, 2), lines(1, 4)], "x=$2$": [lines(2, 2)]})
    left = drawn.axes[0]
    assert [line.get_label() for line in left.lines] == [
        "x=1 (2 seeds): training loss",
        r"x=\$2\$: training loss",
    ]
    assert len(left.collections) == 1 and left.lines[0].get_color() != left.lines[1].get_color()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of two runs that differ in the seed; the second one is a copy of the first."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = runs.write_recipe(folder)
    assert cli.train(recipe, folder / "seed0", "--config.total.steps=2") == 0
    shutil.copytree(folder / "seed0", folder / "seed1")
    config = folder / "seed1" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"seed": 1}))
    return folder


def test_the_command_compares_runs(folders, printed, refused, tmp_path):
    both = ("--workdir", folders / "seed0", folders / "seed1")
    there = printed("figures", *both, "-o", tmp_path / "there").split()
    assert [path.rpartition("/")[2] for path in there] == ["curves.png", "ablation.png"]
    page = tmp_path / "page.html"
    assert printed("figures", *both, "--only", "ablation", "--html", page) == f"{page}\n"
    assert page.read_text().count("<img src=") == 1
    assert "give a folder, -o" in refused("figures", *both)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--only", "filters"), "curves and ablation only: leave out filters"),
        (("--image-size", "32"), "--image-size is for the pictures of one run"),
        (("--measured", "8"), "--measured is for the pictures of one run"),
        (("--step", "best"), "--step is for the pictures of one run"),
    ],
)
def test_what_belongs_to_one_run_is_refused_for_several(
    folders, refused, tmp_path, option, message
):
    both = ("--workdir", folders / "seed0", folders / "seed1")
    assert message in refused("figures", *both, *option, "-o", tmp_path / "no", folder=tmp_path)


def test_a_run_without_lines_has_no_curves(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}))
    assert bands.read(tmp_path) == [(1, {"loss": 2.0})]
    with pytest.raises(NoPicture, match="has no metrics.jsonl"):
        bands.read(tmp_path / "other")
