"""What a config.json says that the classes are called: read where it fits the head, else said."""

import json

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

import vit_jax
from tests.checkpoints.parity import TINY
from vit_jax.checkpoints import layouts, load, surgery
from vit_jax.checkpoints.layouts import class_names

NAMES = ("ant", "bee", "cow")


@pytest.mark.parametrize(
    "config",
    [
        {"label_names": ["ant", "bee", "cow"]},
        {"label_names": {"0": "ant", "2": "cow", "1": "bee"}},
        {"pretrained_cfg": {"label_names": ["ant", "bee", "cow"]}},
        {"id2label": {"0": "ant", "1": "bee", "2": "cow"}},
        {"label_descriptions": {"n01": "ant", "n02": "bee", "n03": "cow"}},
        {"label_descriptions": {"2": "cow", "1": "bee", "0": "ant"}},
        {"pretrained_cfg": {"label_descriptions": {"n01": "ant", "n02": "bee", "n03": "cow"}}},
        # Descriptions explain names, and are no names where those are told.
        {"label_names": ["ant", "bee", "cow"], "label_descriptions": {"ant": "small"}},
        {"label_names": ["ant", "bee", "cow"], "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    ],
)
def test_names_are_read_from_where_timm_and_hugging_face_keep_them(config):
    assert class_names.told(config, 3) == (NAMES, ())


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"id2label": {"0": "ant", "1": "bee"}}, "id2label names 2 classes and the head has 3"),
        ({"label_names": [*NAMES, "dog"]}, "label_names names 4 classes and the head has 3"),
        ({"id2label": {"0": "a", "1": "b", "5": "c"}}, "id2label lacks class 2"),
        ({"id2label": {"0": "a", "x": "b", "2": "c"}}, "keys that are no numbers"),
        ({"id2label": {"0": "a", "00": "b", "2": "c"}}, "keys that are no numbers of classes, or"),
        ({"label_names": ["a", None, "c"]}, "label_names has a name that is no text"),
        ({"label_names": ["a", " ", "c"]}, "label_names has a name that is no text"),
        ({"label_names": "abc"}, "label_names is str, not a list of names"),
    ],
)
def test_names_that_do_not_fit_the_head_are_none_and_that_is_said(config, problem):
    names, notes = class_names.told(config, 3)
    assert names == ()
    assert problem in "".join(notes)


def test_a_copied_file_does_not_hide_names_that_fit():
    config = {"label_names": ["a", "b"], "id2label": {"0": "ant", "1": "bee", "2": "cow"}}
    names, notes = class_names.told(config, 3)
    assert names == NAMES
    assert "label_names names 2 classes and the head has 3" in notes[0]


def test_numbers_are_names_and_names_that_come_twice_are_said():
    assert class_names.told({"label_names": [7, 8, 9]}, 3) == (("7", "8", "9"), ())
    names, notes = class_names.told({"label_names": ["crane", "ant", "crane"]}, 3)
    assert names == ("crane", "ant", "crane")
    assert "calls more than one class 'crane'" in notes[0]


def test_no_names_and_no_head_are_nothing_to_say():
    generic = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert class_names.told(generic, 3) == ((), ())
    assert class_names.told({}, 3) == ((), ())
    assert class_names.told({"label_names": ["a"]}, 0) == ((), ())


def test_load_gives_the_names_of_timms_config_and_logs_those_of_another_head(tmp_path, caplog):
    table = layouts.writer(TINY, "timm")
    zeros = {k: np.zeros(s, np.float32) for k, s in surgery.shapes(TINY).items()}
    arrays = layouts.table.write(table.entries(TINY), zeros)
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    safetensors_numpy.save_file(arrays, tmp_path / "model.safetensors")
    names = [f"class {i}" for i in range(TINY.num_classes)]
    config = {"architecture": "vit_tiny", "model_args": {"num_heads": 3}, "label_names": names}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert vit_jax.load(tmp_path).class_names == tuple(names)
    assert not load.adapted(load.read(tmp_path), num_classes=3)[0].class_names
    (tmp_path / "config.json").write_text(json.dumps(config | {"label_names": names[1:]}))
    assert vit_jax.load(tmp_path).class_names == ()
    assert "label_names names 4 classes and the head has 5" in caplog.text
