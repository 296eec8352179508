"""model.json reads back equal, and a damaged or newer one is refused in one line."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath
from flax import traverse_util

from tests.models import tiny
from vit_jax.checkpoints import card as card_lib
from vit_jax.checkpoints import load, run_folder, store
from vit_jax.config import CheckpointConfig, default_config, resolve
from vit_jax.models import zoo
from vit_jax.models.interpolation import Methods
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.training import run_config

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
    run_config.write_run(tmp_path, resolve(config), CARD)
    return tmp_path


def test_a_card_reads_back_equal(run) -> None:
    assert run_folder.read_card(run) == CARD


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_run_is_loaded_with_its_average_where_it_keeps_one(tmp_path, average) -> None:
    options = tiny.options(image_size=(16, 16), depth=1)
    params = tiny.params(options)
    card = dataclasses.replace(
        CARD,
        options=options,
        class_names=("a", "b", "c", "d", "e"),
        preprocessing=Preprocessing(image_size=(16, 16), crop_pct=0.5),
        resize=Methods(position="bicubic", patch="bicubic"),
        average=average > 0,
    )
    config = default_config()
    config.model.name, config.ema = "Ti/16", average
    run_config.write_run(tmp_path, resolve(config), card)
    state = {"params": {path: array + 1 for path, array in params.items()}}
    if average:
        state["ema"] = params
    nested = {k: traverse_util.unflatten_dict(v, sep="/") for k, v in state.items()}
    with store.Store(tmp_path, CheckpointConfig()) as saved:
        saved.save(0, jax.tree.map(jax.numpy.asarray, nested), {})
        saved.wait()
    read = load.read(tmp_path)
    for path, array in params.items():
        np.testing.assert_array_equal(read.params[path], array if average else array + 1)
    assert (read.options, read.class_names) == (options, card.class_names)
    assert (read.preprocessing, read.resize) == (card.preprocessing, card.resize)
    model = load.load(tmp_path)
    assert (model.preprocessing, model.class_names) == (card.preprocessing, card.class_names)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"layout": "timm"}, "is a run without layout, not 'timm': leave it out"),
        ({"num_heads": 2}, "is a run with num_heads 3, not 2: leave it out"),
        ({"decoder_heads": 2}, "is a run without decoder_heads, not 2"),
        ({"grid": (1, 4)}, r"is a run with grid \(2, 2\), not \(1, 4\)"),
    ],
)
def test_an_argument_that_contradicts_a_run_is_refused(run, monkeypatch, argument, message) -> None:
    checkpoint = load.Checkpoint(options=OPTIONS, params={}, preprocessing=CARD.preprocessing)
    monkeypatch.setattr(load, "_read_run", lambda *_, **__: checkpoint)
    assert load.read(run, num_heads=3, grid=(2, 2)) is checkpoint
    with pytest.raises(ValueError, match=message):
        load.read(run, **argument)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("class_names", ["a"], "it has 1 class names for 3 classes"),
        ("class_names", [1, 2, 3], "must be str"),
        ("class_names", {"0": "a", "1": "b", "2": "c"}, "model.json.class_names must be a list"),
        ("class_names", {"a": 2, "b": 0, "c": 1}, "model.json.class_names must be a list, got {"),
        ("preprocessing/image_size", [0, 0], "image_size is 0 x 0: it must have 1 to"),
        ("preprocessing/image_size", [10**6, 10**6], "image_size is 1000000 x 1000000"),
        ("preprocessing/image_size", [32, 64], "makes images of size (32, 64), its model takes"),
        ("preprocessing/crop_pct", 1e-9, "crop_pct is 1e-09: it must be in"),
        ("preprocessing/crop_pct", 0.0, "crop_pct is 0.0: it must be in"),
        ("preprocessing/crop_pct", 2.0, "crop_pct is 2.0: it must be in"),
        ("preprocessing/std", [0.5, 0.0, 0.5], "std positive"),
        ("preprocessing/mean", [float("nan")] * 3, "must be finite"),
        ("preprocessing/interpolation", "cubic", "choose one of"),
        ("preprocessing/interpolation", [1], "choose one of"),
        ("options/depth", -1, "depth is -1"),
        ("options/width", "12", "must be int"),
        ("options", None, "must hold the fields"),
        ("preprocessing", {}, "lacks image_size"),
        ("unknown", 1, "unknown config field"),
    ],
)
def test_a_changed_card_is_refused(run, path: str, value: Any, message: str) -> None:
    content = json.loads((run / "model.json").read_text())
    *outer, name = path.split("/")
    place = content
    for key in outer:
        place = place[key]
    place[name] = value
    (run / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        run_folder.read_card(run)
    assert message in str(error.value) and "\n" not in str(error.value)


def changed(run: pathlib.Path, **fields: Any) -> None:
    content = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps(content | fields))


def test_a_field_that_the_file_declares_optional_is_left_out_with_a_note(run) -> None:
    options = json.loads((run / "model.json").read_text())["options"] | {"new_part": 1}
    changed(run, options=options, licence="MIT", optional=["options.new_part", "licence", "gone"])
    card = run_folder.read_card(run)
    assert card.options == OPTIONS
    (note,) = card.notes
    wanted = "this version ignores optional fields of model.json: options.new_part, licence"
    assert note == wanted


def test_a_known_field_is_read_even_if_it_is_optional(run) -> None:
    changed(run, average=True, optional=["average", "options"])
    card = run_folder.read_card(run)
    assert card.average and not card.notes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 4}, "has format 4, this version of vit_jax reads formats up to 3: update"),
        ({"format": "1"}, "its format is '1'"),
        ({"format": 0}, "its format is 0"),
        (
            {"family": "resnext"},
            "unknown model family 'resnext': known are vit, masked_autoencoder",
        ),
        ({"family": ["vit"]}, "unknown model family"),
        ({"optional": [1]}, "optional[0] must be str"),
        ({"licence": "MIT"}, "unknown config field"),
        ({"licence": "MIT", "optional": ["options.licence"]}, "unknown config field"),
    ],
)
def test_cards_that_this_version_cannot_read_are_refused(run, fields, message) -> None:
    changed(run, **fields)
    with pytest.raises(ValueError) as error:
        run_folder.read_card(run)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_card_of_format_1_is_read_under_the_new_names_of_its_fields(run) -> None:
    now = json.loads((run / "model.json").read_text())
    options, expects = now["options"], now["preprocessing"]
    assert options.pop("activation") == "gelu_tanh" and expects.pop("crop_pct") == 0.875
    old_options = options | {"gelu": "quick", "stochastic_depth": 0.25}
    del old_options["drop_path"], expects["interpolation"]
    expects |= {"crop": 0.75, "kernel": "nearest"}
    changed(run, format=1, options=old_options, preprocessing=expects)
    card = run_folder.read_card(run)
    assert (card.options.activation, card.options.drop_path) == ("gelu_quick", 0.25)
    assert (card.preprocessing.crop_pct, card.preprocessing.interpolation) == (0.75, "nearest")
    run_folder.renew_card(run)
    assert json.loads((run / "model.json").read_text())["format"] == 2
    assert run_folder.read_card(run) == card


def test_a_field_under_both_its_names_is_refused(run) -> None:
    options = json.loads((run / "model.json").read_text())["options"]
    changed(run, format=1, options=options | {"gelu": "tanh"})
    with pytest.raises(ValueError, match="options.gelu"):
        run_folder.read_card(run)


def test_a_card_says_its_format_and_family(run) -> None:
    content = json.loads((run / "model.json").read_text())
    assert (content["format"], content["family"], content["average"]) == (2, "vit", False)


def test_a_card_that_cannot_be_read_is_refused(run, monkeypatch) -> None:
    def closed(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(epath.Path(run)), "read_text", closed)
    with pytest.raises(ValueError, match=r"cannot read .*model\.json: Permission denied$"):
        run_folder.read_card(run)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", '"x"', '{"options": {}}', ""])
def test_a_card_that_is_not_an_object_is_refused(run, text) -> None:
    (run / "model.json").write_text(text)
    with pytest.raises(ValueError) as error:
        run_folder.read_card(run)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("objective", "found"),
    [
        ({"name": "classification", "cross_entropy": "sigmoid_mean"}, "sigmoid_mean"),
        ({"loss": "sigmoid"}, "sigmoid"),  # the name of the first versions
        ({"name": "mae"}, ""),
        ("mae", ""),
        ({"cross_entropy": "hinge"}, ""),
    ],
)
def test_the_config_of_an_earlier_run_says_what_it_was_trained_with(
    run, objective, found, caplog
) -> None:
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(content | {"objective": objective}))
    assert run_folder.cross_entropy_of_config(run) == found
    unreadable = objective == {"cross_entropy": "hinge"}
    assert ("assumed to be a softmax" in caplog.text) == unreadable


def test_a_card_without_a_cross_entropy_is_readable_by_earlier_versions(run) -> None:
    assert not {"optional", "cross_entropy"} & set(card_lib.to_json(CARD))
    content = card_lib.to_json(dataclasses.replace(CARD, cross_entropy="sigmoid"))
    assert content["optional"] == ["cross_entropy"]  # they leave it out
    changed(run, **content)
    assert run_folder.read_card(run).cross_entropy == "sigmoid"
