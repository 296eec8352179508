"""Images with a map of labels instead of class folders."""

import json

import numpy as np
import PIL.Image
import pytest

from vit_jax.data.image_list import ImageListSource, read_labels


@pytest.fixture
def folder(tmp_path):
    for name in ("a b.png", "c.png"):
        PIL.Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / name)
    return tmp_path


def test_both_forms_of_a_map_are_read(tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"a b.png": 2, "c.png": 0}))
    (tmp_path / "map.txt").write_text("a b.png 2\nc.png 0\n\n")
    expected = {"a b.png": 2, "c.png": 0}
    assert read_labels(tmp_path / "map.json") == read_labels(tmp_path / "map.txt") == expected


@pytest.mark.parametrize("text", ["", "alone", "{broken", '{"a": "x"}', "a.png one"])
def test_what_is_no_map_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "map").write_text(text)
    with pytest.raises(ValueError, match="map") as error:
        read_labels(tmp_path / "map")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot read the labels"):
        read_labels(tmp_path / "absent")


def test_records_follow_the_map(folder):
    source = ImageListSource(folder, {"c.png": 1, "a b.png": 0}, class_names=("x", "y"))
    assert [source.read(i).label for i in range(len(source))] == [1, 0]
    assert source.read(1).path.endswith("a b.png")


def test_missing_files_and_unknown_classes_are_named(folder):
    with pytest.raises(ValueError, match=r"1 labelled files are not in .*: d\.png"):
        ImageListSource(folder, {"d.png": 0}, class_names=("x",))
    with pytest.raises(ValueError, match=r"outside the 1 classes: c\.png: 1"):
        ImageListSource(folder, {"c.png": 1}, class_names=("x",))
    with pytest.raises(ValueError, match="is not a folder"):
        ImageListSource(folder / "c.png", {"c.png": 0}, class_names=("x",))
