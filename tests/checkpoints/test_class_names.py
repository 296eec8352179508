"""Class names in config.json are read if they fit the head, else ignored with a note."""

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
        # Descriptions are not used where there are names.
        {"label_names": ["ant", "bee", "cow"], "label_descriptions": {"ant": "small"}},
        {"label_names": ["ant", "bee", "cow"], "id2label": {"0": "LABEL_0", "1": "LABEL_1"}},
    ],
)
def test_names_are_read_from_the_fields_of_timm_and_hugging_face(config):
    assert class_names.read(config, 3) == (NAMES, ())


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"id2label": {"0": "ant", "1": "bee"}}, "id2label names 2 classes, but the head has 3"),
        ({"label_names": [*NAMES, "dog"]}, "label_names names 4 classes, but the head has 3"),
        ({"id2label": {"0": "a", "1": "b", "5": "c"}}, "id2label lacks class 2"),
        ({"id2label": {"0": "a", "x": "b", "2": "c"}}, "keys that are not class numbers"),
        ({"id2label": {"0": "a", "00": "b", "2": "c"}}, "keys that are not class numbers, or"),
        ({"label_names": ["a", None, "c"]}, "label_names has a name that is not text"),
        ({"label_names": ["a", " ", "c"]}, "label_names has a name that is not text"),
        ({"label_names": "abc"}, "label_names is str, not a list of names"),
    ],
)
def test_names_that_do_not_fit_the_head_are_ignored_with_a_note(config, problem):
    names, notes = class_names.read(config, 3)
    assert names == ()
    assert problem in "".join(notes)


def test_names_that_fit_are_read_beside_names_that_do_not():
    config = {"label_names": ["a", "b"], "id2label": {"0": "ant", "1": "bee", "2": "cow"}}
    names, notes = class_names.read(config, 3)
    assert names == NAMES
    assert "label_names names 2 classes, but the head has 3" in notes[0]


def test_numbers_can_be_names_and_duplicate_names_are_noted():
    assert class_names.read({"label_names": [7, 8, 9]}, 3) == (("7", "8", "9"), ())
    names, notes = class_names.read({"label_names": ["crane", "ant", "crane"]}, 3)
    assert names == ("crane", "ant", "crane")
    assert "has several classes named 'crane'" in notes[0]


def test_missing_names_or_a_missing_head_give_no_note():
    generic = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert class_names.read(generic, 3) == ((), ())
    assert class_names.read({}, 3) == ((), ())
    assert class_names.read({"label_names": ["a"]}, 0) == ((), ())


def test_load_reads_names_from_timms_config_and_warns_if_they_do_not_fit(tmp_path, caplog):
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
    assert "label_names names 4 classes, but the head has 5" in caplog.text
