"""Images with a map of labels instead of class folders."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from vit_jax.data import identity
from vit_jax.data.changes import changes
from vit_jax.data.image_list import ImageListSource, read_label_sets, read_labels

REFUSED = [
    *("alone", "{broken", '{"a": "x"}', "a.png one", "[1, 2]", "null", '{"a": [1]}', '{"a": null}'),
    *('{"a": 1.7}', '{"a": 1.0}', '{"a": true}', '{"a": NaN}', '{"a": Infinity}', '{"a": 1e3}'),
    *("a 1.7", "a true", "a nan", "a 1_0", "a 0x1", "a \u0661", "a " + "9" * 5000),
    *('{"a": 1, "a": 2}', '{"a": 1, "a": 1}', '{"a": 1, "./a": 2}', "a 1\na 2", "a 1\nb/../a 1"),
    *('\ufeff{"a": 1}', "\ufeffa 1", "[" * 200_000, '{"a":' * 200_000, '{"a": ' + "9" * 5000 + "}"),
]


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


@pytest.mark.parametrize("text", ["", *REFUSED])
def test_a_file_that_is_not_a_map_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "map").write_text(text)
    with pytest.raises(ValueError, match="map") as error:
        read_labels(tmp_path / "map")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    with pytest.raises(ValueError, match="cannot read the labels"):
        read_labels(tmp_path / "absent")


def test_records_follow_the_map(folder):
    source = ImageListSource(folder, {"c.png": 1, "a b.png": 0}, class_names=("x", "y"))
    assert [source.read(i).label for i in range(len(source))] == [1, 0]
    assert source.read(1).path.endswith("a b.png")


def test_missing_files_and_unknown_classes_are_named(folder):
    with pytest.raises(ValueError, match=r"1 labelled files are not in .*: 'd\.png'"):
        ImageListSource(folder, {"d.png": 0}, class_names=("x",))
    with pytest.raises(ValueError, match=r"outside the 1 classes: 'c\.png: 1'"):
        ImageListSource(folder, {"c.png": 1}, class_names=("x",))
    with pytest.raises(ValueError, match="is not a folder"):
        ImageListSource(folder / "c.png", {"c.png": 0}, class_names=("x",))
    for label in (-1, 1, 10**30):
        with pytest.raises(ValueError, match="outside the 1 classes"):
            ImageListSource(folder, {"c.png": label}, class_names=("x",))


@pytest.mark.parametrize("name", ["../c.png", "x/../../c.png", "/etc/passwd"])
def test_files_outside_the_folder_are_refused(folder, name):
    with pytest.raises(ValueError, match="labelled files are not below"):
        ImageListSource(folder / "..", {name: 0}, class_names=("x",))


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udce9", "."])
def test_names_of_missing_files_are_refused(folder, name):
    with pytest.raises(ValueError, match="1 labelled files are not in"):
        ImageListSource(folder, {name: 0}, class_names=("x",))


@pytest.mark.parametrize("text", ['{"a.png": ["2", "3"], "c.png": 2}', "a.png 2,3\nc.png 3"])
def test_a_text_means_the_same_class_alone_and_in_a_list(tmp_path, text) -> None:
    """Also where the classes have numbers for names. A number of JSON is an index."""
    (tmp_path / "labels").write_text(text)
    found = read_label_sets(tmp_path / "labels", class_names=("1", "2", "3"))
    assert found == {"a.png": (1, 2), "c.png": (2,)}


def test_an_identity_depends_on_the_order_in_which_classes_alternate(folder) -> None:
    """The row of an image is its number, for example among the answers of a teacher."""
    for name in ("d.png", "e.png"):
        shutil.copy(folder / "c.png", folder / name)
    rows = {"a b.png": 0, "c.png": 1, "d.png": 0, "e.png": 1}
    was, now = (
        ImageListSource(folder, {n: rows[n] for n in names}, class_names=("x", "y")).identity()
        for names in (rows, sorted(rows, key=lambda name: rows[name]))
    )
    assert changes(was, now) == ("the order of its images, or their classes, have changed",)
    without = {name: part for name, part in was.parts.items() if name in "xy"}
    old = identity.identify("image_list", class_names=("x", "y"), parts=without, images=was.images)
    assert "of an earlier version" in changes(old, now)[0]


@pytest.mark.parametrize("form", ["json", "lines"])
def test_a_label_may_be_the_name_of_a_class(tmp_path, form) -> None:
    """Also of digits, which are else an index. A name of two classes is refused."""
    path = tmp_path / "labels"
    names = ("crane", "dog", "crane", "0")

    def read(label: str) -> dict[str, int]:
        path.write_text(f'{{"a.png": "{label}"}}' if form == "json" else f"a.png {label}\n")
        return read_labels(path, class_names=names)

    assert read("dog") == {"a.png": 1}
    assert read("0") == {"a.png": 3}
    assert read("1") == {"a.png": 1}
    for label in ("crane", "cat"):
        with pytest.raises(ValueError, match="is not an integer and not the name of one class"):
            read(label)
