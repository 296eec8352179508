"""A model.json that somebody changed is refused in one line."""

import json
import pathlib
from typing import Any

import pytest
from etils import epath

from vit_jax.checkpoints import run_folder
from vit_jax.config import default_config, resolve
from vit_jax.models import zoo
from vit_jax.models.preprocessing import Preprocessing

OPTIONS = zoo.change(zoo.options("Ti/16"), image_size=(32, 32), num_classes=3)
CARD = run_folder.Card(
    options=OPTIONS,
    class_names=("a", "b", "c"),
    preprocessing=Preprocessing(image_size=(32, 32)),
)


@pytest.fixture
def run(tmp_path) -> pathlib.Path:
    config = default_config()
    config.model.name = "Ti/16"
    run_folder.write_run(tmp_path, resolve(config), CARD)
    return tmp_path


def test_what_was_written_is_read(run) -> None:
    assert run_folder.read_card(run) == CARD


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("class_names", ["a"], "it names 1 of the model's 3 classes"),
        ("class_names", [1, 2, 3], "must be str"),
        ("preprocessing/image_size", [0, 0], "images of 0 x 0 are not possible"),
        ("preprocessing/image_size", [10**6, 10**6], "images of 1000000 x 1000000"),
        ("preprocessing/image_size", [32, 64], "its images are of (32, 64), its model is for"),
        ("preprocessing/crop", 1e-9, "crop is 1e-09: it must be in"),
        ("preprocessing/crop", 0.0, "crop is 0.0: it must be in"),
        ("preprocessing/crop", 2.0, "crop is 2.0: it must be in"),
        ("preprocessing/std", [0.5, 0.0, 0.5], "std positive"),
        ("preprocessing/mean", [float("nan")] * 3, "must be finite"),
        ("preprocessing/kernel", "cubic", "choose one of"),
        ("preprocessing/kernel", [1], "choose one of"),
        ("options/depth", -1, "depth is -1"),
        ("options/width", "12", "must be int"),
        ("options", None, "must hold the fields"),
        ("preprocessing", {}, "lacks image_size"),
        ("unknown", 1, "unknown config field"),
    ],
)
def test_a_changed_card_is_refused(run, path: str, value: Any, said: str) -> None:
    content = json.loads((run / "model.json").read_text())
    *outer, name = path.split("/")
    place = content
    for key in outer:
        place = place[key]
    place[name] = value
    (run / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        run_folder.read_card(run)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_card_that_cannot_be_read_is_refused(run, monkeypatch) -> None:
    def closed(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(epath.Path(run)), "read_text", closed)
    with pytest.raises(ValueError, match=r"cannot read .*model\.json: Permission denied$"):
        run_folder.read_card(run)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", '"x"', '{"options": {}}', ""])
def test_a_card_that_holds_something_else_is_refused(run, text) -> None:
    (run / "model.json").write_text(text)
    with pytest.raises(ValueError) as error:
        run_folder.read_card(run)
    assert "\n" not in str(error.value)
