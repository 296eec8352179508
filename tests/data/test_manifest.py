"""Tables of images and classes, CSV or Parquet, as a source."""

import pathlib

import numpy as np
import PIL.Image
import pyarrow
import pytest
from pyarrow import parquet

from vit_jax.data import manifest, opening
from vit_jax.data.manifest import ManifestData
from vit_jax.data.options import DataConfig

TRAIN = "path,label,split\na/0.png,10,x\na/1.png,9,x\n\n b/2.png , 10 ,x\n"


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Three images whose first pixel is their number, and a table of each split."""
    for number, name in enumerate(("a/0.png", "a/1.png", "b/2.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(path)
    (tmp_path / "train.csv").write_text(TRAIN)
    table = pyarrow.table({"path": ["b/2.png", "a/1.png"], "label": [10, 9]})
    parquet.write_table(table, tmp_path / "val.parquet")
    return tmp_path


def test_rows_of_csv_and_parquet_are_images_with_their_classes(folder) -> None:
    data = DataConfig(source=ManifestData(path=str(folder)))
    train, held_out = opening.open_train(data), opening.open_eval(data)
    assert train.class_names == held_out.class_names == ("9", "10"), "sorted as numbers"
    assert [train.read(i).label for i in range(3)] == [1, 0, 1]
    assert [held_out.read(i).label for i in range(2)] == [1, 0]
    assert held_out.read(0).path == str(folder / "b/2.png")
    assert train.read(2).data == (folder / "b/2.png").read_bytes()


def test_paths_may_be_absolute_and_columns_may_have_other_names(folder, tmp_path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    rows = [f"{name},{folder}/{file}" for name, file in (("cat", "a/0.png"), ("ant", "b/2.png"))]
    (tables / "train.csv").write_text("\n".join(["kind,file", *rows]))
    data = ManifestData(path=str(tables), path_column="file", label_column="kind")
    source = data.open("train", train_split="train")
    assert (source.class_names, source.read(0).label) == (("ant", "cat"), 1)
    assert source.read(1).data == (folder / "b/2.png").read_bytes()


def test_images_may_be_in_a_folder_whose_name_begins_like_that_of_the_tables(folder) -> None:
    """And a table of a spreadsheet begins with a byte order mark."""
    tables = folder / "a-tables"
    (folder / "a").rename(folder / "a-tables-images")
    tables.mkdir()
    text = "path,label\n../a-tables-images/0.png,1\n../a-tables-images/1.png,2\n"
    (tables / "train.csv").write_text(text, encoding="utf-8-sig")
    source = ManifestData(path=str(tables)).open("train", train_split="train")
    assert source.read(1).data == (folder / "a-tables-images/1.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\na/0.png,1\n",
            "has no columns 'path': it has file, label; name one with config.data.path_column",
        ),
        (
            "path,label,label\na/0.png,1,2\n",
            "has 2 columns 'label': it has path, label, label; name one",
        ),
        ("path,label\na/0.png,1\na/./0.png,1\n", "has 'a/./0.png' twice"),
        ("path,label\na/0.png,\n", "row 1 has no path or no class"),
        ("path,label\na/0.png\n", "cannot read the table .*: row 1 has 1 of 2 fields"),
        ("path,label\n", "holds no rows"),
        ("path,label\na/9.png,9\n", "1 labelled files are not in"),
        ("path,label\na/0.png,8\n", "test has 1 classes that train does not have: 8"),
        ("\xff", "has no columns 'path'"),
        ("path,label\na/0.png,1\n{folder}/a/0.png,2\n", "twice"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(folder, text, message) -> None:
    (folder / "test.csv").write_text(text.replace("{folder}", str(folder)))
    with pytest.raises(ValueError, match=message):
        ManifestData(path=str(folder)).open("test", train_split="train")


def test_the_folder_of_the_tables_may_be_the_current_one(folder, monkeypatch) -> None:
    """The same images by another path are no change of the data."""
    (found,) = {ManifestData(path=str(folder)).open("train", train_split="train").identity().digest}
    monkeypatch.chdir(folder)
    for path in (".", "./a/.."):
        source = ManifestData(path=path).open("train", train_split="train")
        assert source.identity().digest == found
    (folder / "test.csv").write_text(f"path,label\na/0.png,1\n{folder}/a/0.png,2\n")
    with pytest.raises(ValueError, match="twice"):
        ManifestData(path=".").open("test", train_split="test")


def test_equal_numbers_are_classes_in_an_order_that_no_hash_decides() -> None:
    labels = [f"{'0' * zeros}{number}" for number in range(9) for zeros in (2, 1, 0)]
    names = manifest._classes(dict(enumerate(labels)))
    assert names == tuple(sorted(labels, key=lambda label: (int(label), label)))


@pytest.mark.parametrize(("missing", "refused"), [(float("nan"), True), (3.0, False)])
def test_a_cell_of_parquet_without_a_value_is_no_class(folder, missing, refused) -> None:
    table = pyarrow.table({"path": ["a/0.png", "a/1.png"], "label": [1.0, missing]})
    parquet.write_table(table, folder / "test.parquet")
    data = ManifestData(path=str(folder))
    if refused:
        with pytest.raises(ValueError, match="row 2 has no path or no class"):
            data.open("test", train_split="test")
    else:
        assert data.open("test", train_split="test").class_names == ("1", "3")


def test_a_cell_with_several_classes_is_refused(folder) -> None:
    """Each list of classes would be a class of its own."""
    table = pyarrow.table({"path": ["a/0.png", "a/1.png"], "label": [["cat"], ["cat", "dog"]]})
    parquet.write_table(table, folder / "test.parquet")
    with pytest.raises(ValueError, match="holds several values: for several classes use source="):
        ManifestData(path=str(folder)).open("test", train_split="test")


def test_whole_numbers_of_a_column_with_floats_are_classes_in_their_order(folder) -> None:
    """Pandas makes floats of a column of integers that had a missing value."""
    table = pyarrow.table({"path": ["a/0.png", "a/1.png"], "label": [10.0, 2.0]})
    parquet.write_table(table, folder / "test.parquet")
    data = ManifestData(path=str(folder))
    assert data.open("test", train_split="test").class_names == ("2", "10")


def test_texts_of_parquet_may_be_bytes(folder) -> None:
    table = pyarrow.table({"path": [b"a/0.png", b"a/1.png"], "label": [b"cat", "é".encode()]})
    parquet.write_table(table, folder / "test.parquet")
    source = ManifestData(path=str(folder)).open("test", train_split="test")
    assert source.class_names == ("cat", "é")
    parquet.write_table(
        pyarrow.table({"path": [b"a"], "label": [b"\xff"]}), folder / "test.parquet"
    )
    with pytest.raises(ValueError, match="cannot read the table .*test.parquet: 'utf-8' codec"):
        ManifestData(path=str(folder)).open("test", train_split="test")


def test_a_split_without_or_with_two_tables_and_a_damaged_parquet_are_refused(folder) -> None:
    data = ManifestData(path=str(folder))
    with pytest.raises(ValueError, match="no table of a split 'test'.*: there are tables of train"):
        data.open("test", train_split="train")
    (folder / "val.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(ValueError, match="cannot read the table .*val.parquet"):
        data.open("val", train_split="train")
    (folder / "val.csv").write_text(TRAIN)
    with pytest.raises(ValueError, match="two lists of the split val"):
        data.splits(train_split="train")
    with pytest.raises(ValueError, match="config.data.path is empty: name a folder with a table"):
        ManifestData().splits(train_split="train")
