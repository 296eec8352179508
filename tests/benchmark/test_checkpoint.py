"""`benchmark checkpoint`: what it measures, and that it leaves nothing behind."""

import json
import pathlib

import pytest

from tests import cli
from vit_jax.benchmark import checkpoint

FEW = ("--warmup", "1", "--steps", "2", "--saves", "2")


def call(recipe: pathlib.Path, workdir: pathlib.Path) -> tuple[object, ...]:
    return ("benchmark", "checkpoint", "--config", recipe, "--workdir", workdir, *FEW)


def test_saves_and_restores_are_timed_and_removed(recipe, tmp_path, printed) -> None:
    (tmp_path / "own.txt").write_text("stays")
    content = json.loads(printed(*call(recipe, tmp_path), "--json"))
    assert [path.name for path in tmp_path.iterdir()] == ["own.txt"]
    found = content["measured"]
    assert all(len(found[name]["rounds"]) == 2 for name in ("stall", "save", "restore"))
    assert found["stall"]["median"] <= found["save"]["median"]
    assert len(found["step"]["rounds"][0]) == 2 and all(found["step_while_saving"]["rounds"])
    # The state: parameters, their average and two moments, and a few numbers.
    assert found["state"]["median"] > 1000 < found["written"]["median"]
    assert content["results"]["seconds_lost_per_save"] >= min(*found["stall"]["rounds"])[0]


def test_a_new_folder_is_removed_when_it_is_interrupted(recipe, tmp_path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        assert (tmp_path / "new" / checkpoint.FOLDER).is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "prepared", interrupt)
    assert cli.run(*call(recipe, tmp_path / "new")) == 130
    assert not list(tmp_path.iterdir())


def test_a_folder_of_a_killed_benchmark_and_a_file_are_refused(recipe, tmp_path, refused) -> None:
    (tmp_path / checkpoint.FOLDER).mkdir()
    assert "remove it" in refused(*call(recipe, tmp_path), folder=tmp_path)
    (tmp_path / "file").touch()
    assert "cannot be made" in refused(*call(recipe, tmp_path / "file"), folder=tmp_path)
    assert "required: --workdir" in refused("benchmark", "checkpoint", "--config", recipe)


@pytest.mark.parametrize(("every", "share"), [(0, None), (10, 0.5 / 1.5)])
def test_the_cost_is_the_stall_and_what_steps_take_longer(every, share) -> None:
    saves = [checkpoint._Save(stall=0.3, total=2.0, steps=(0.2, 0.2))] * 3
    found = checkpoint._cost(saves, [0.1, 0.1, 0.1], every=every)
    assert found["seconds_lost_per_save"] == pytest.approx(0.5)
    assert found.get("share_of_time_lost") == (share and pytest.approx(share))
