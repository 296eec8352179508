"""Unknown labels are left out and counted, or refused; labels that are not classes are refused."""

import json
import pathlib
import shutil
import warnings

import numpy as np
import pytest

from tests import cli, runs
from vit_jax.data.crops import Inception
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.pipeline import eval_batches, train_batches
from vit_jax.data.preprocess import EvalTransform, TrainTransform
from vit_jax.data.record import LabelError
from vit_jax.data.sources import TfdsData
from vit_jax.errors import RunFailed

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tests.data.tfds_datasets import prepare, tfds

ANIMALS = ("cat", "dog", "horse")
UNLABELLED = [-1] * 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("tfds")
    f = tfds.features
    named = f.ClassLabel(names=list(ANIMALS))
    whole = [i % 3 for i in range(12)]
    some = [0, -1, 2, 1, -1, -1, 0]
    prepare(root, "test_only", named, {"train": whole, "test": UNLABELLED})
    prepare(root, "both", named, {"train": whole, "validation": UNLABELLED, "test": some})
    prepare(root, "half", named, {"train": some, "validation": some})
    prepare(root, "numbered", f.ClassLabel(num_classes=3), {"train": whole, "test": whole})
    prepare(root, "flags", f.Scalar(np.bool_), {"train": [True, False] * 3, "test": [True]})
    refused = {
        "scalar": (f.Scalar(np.int64), 1),
        "fraction": (f.Scalar(np.float32), 0.5),
        "array": (f.Tensor(shape=(1,), dtype=np.int64), [1]),
        "several": (f.Sequence(f.Scalar(np.int64)), [0, 1]),
        "text": (f.Text(), "cat"),
    }
    for name, (feature, label) in refused.items():
        prepare(root, name, feature, {"train": [label], "test": [label]})
    sets = [[0, 2], [], [1], [2, 1, 0]]
    prepare(root, "sets", f.Sequence(named), {"train": sets, "test": sets})
    shape = f.Tensor(shape=(8, 9, 3), dtype=np.uint8)
    prepare(root, "pixels", named, {"train": whole, "test": whole}, image=shape)
    prepare(root, "shrunk", named, {"train": whole, "test": whole}, classes=ANIMALS[:2])
    return root


def config(root: pathlib.Path, name: str, **fields: str) -> DataConfig:
    return DataConfig(source=TfdsData(name=name, path=str(root)), **fields)


def test_a_split_without_labels_is_never_picked(root: pathlib.Path) -> None:
    assert open_eval(config(root, "both")).name == "both test"
    with pytest.raises(ValueError, match=r"no labelled split .*there are train, test$"):
        open_eval(config(root, "test_only"))


def test_a_split_without_labels_is_refused_where_it_is_named(root: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"^both validation has no labels: set config\.data\.eval"):
        open_eval(config(root, "both", eval_split="validation"))
    with pytest.raises(ValueError, match=r"^both validation: 5 of 5 images have no label \(-1\)"):
        open_train(config(root, "both", train_split="validation"))


def test_training_on_images_without_labels_is_refused(root: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"half train: 3 of 7 images have no label \(-1\): set"):
        open_train(config(root, "half"))
    source = open_source(
        config(root, "half"), split="train"
    )  # as if the sampled labels had not shown it
    transform = TrainTransform(size=(4, 4), crop=Inception())
    batches = train_batches(source, transform, seed=0, batch_size=7, num_steps=1)
    with pytest.raises(RunFailed, match=r"half train\[\d\] has no label"):
        next(batches)


def test_all_labels_are_read_at_once(root: pathlib.Path) -> None:
    for name in ("both", "half"):
        source = open_source(config(root, name), split="train")
        assert source.labels.tolist() == [source.read(i).label for i in range(len(source))]


def test_several_labels_of_an_image_are_rows_of_zeros_and_ones(root: pathlib.Path) -> None:
    source = open_train(config(root, "sets"))
    assert source.multi_label and source.class_names == ANIMALS
    rows = np.stack([source.read(i).label for i in range(4)])
    assert sorted(rows.tolist()) == [[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]]
    np.testing.assert_array_equal(source.labels, rows)
    with eval_batches(source, EvalTransform(size=(4, 4)), batch_size=8) as batches:
        (batch,) = batches
    assert batch["label"].dtype == np.uint8 and batch["mask"].sum() == 4
    np.testing.assert_array_equal(batch["label"][:4], rows)


def test_images_without_labels_are_masked_in_evaluation(root: pathlib.Path) -> None:
    source = open_eval(config(root, "half"))
    with eval_batches(source, EvalTransform(size=(4, 4)), batch_size=4) as batches:
        joined = [np.concatenate(rows) for rows in zip(*map(_columns, batches), strict=True)]
    ids, labels, mask = joined
    assert [labels[ids == i][0] for i in range(7)] == [source.read(i).label for i in range(7)]
    assert sorted(labels[mask]) == [0, 0, 1, 2] and (labels[~mask & (ids >= 0)] == -1).all()


def _columns(batch: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    return batch["id"], batch["label"], batch["mask"]


def test_evaluation_counts_images_without_a_label(root, tmp_path, capsys, printed) -> None:
    recipe, workdir = runs.write_recipe(tmp_path), tmp_path / "run"
    data = ["--config.data.source=tfds", "--config.data.name=both", f"--config.data.path={root}"]
    more = ["--config.batch_size=8", "--config.eval_batch_size=8", "--config.total.steps=2"]
    assert cli.train(recipe, workdir, *data, *more) == 0
    assert "on 4 images, 3 without a label left out" in capsys.readouterr().err
    assert runs.lines(workdir)[-1]["eval_count"] == 4
    assert runs.lines(workdir)[-1]["eval_unlabelled"] == 3
    found = json.loads(printed("evaluate", "--workdir", workdir, "--json"))
    assert found["count"] == 4 and found["unlabelled"] == 3 and "ema_unlabelled" not in found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scalar", "the labels of scalar are a Scalar (Scalar(shape=(), dtype=int64))"),
        ("fraction", "the labels of fraction are a Scalar"),
        ("array", "the labels of array are a Tensor"),
        ("several", "the labels of several are a Sequence"),
        ("text", "the labels of text are a Text"),
        ("pixels", "the images of pixels are a Tensor"),
        ("shrunk", "has the label 2, but there are 2 classes"),
    ],
)
def test_other_labels_are_refused_in_one_line(root, tmp_path, refused, name, message) -> None:
    recipe, workdir = runs.write_recipe(tmp_path), tmp_path / "run"
    data = ["--config.data.source=tfds", f"--config.data.name={name}", f"--config.data.path={root}"]
    assert message in refused("train", "--config", recipe, "--workdir", workdir, *data)
    assert not workdir.exists()


def test_a_label_that_is_not_a_class_stops_the_run(root: pathlib.Path) -> None:
    source = open_source(config(root, "shrunk"), split="train")
    with pytest.raises(LabelError, match=r"has the label 2, but there are 2 classes"):
        [source.read(i) for i in range(len(source))]
    with pytest.raises(RunFailed, match=r"has the label 2, but there are 2 classes"):
        list(eval_batches(source, EvalTransform(size=(4, 4)), batch_size=12))


def test_classes_without_names_are_named_by_number(root: pathlib.Path) -> None:
    assert open_train(config(root, "numbered")).class_names == ("0", "1", "2")
    flags = open_train(config(root, "flags"))
    assert flags.class_names == ("0", "1")
    assert {flags.read(i).label for i in range(6)} == {0, 1}


def test_an_empty_split_is_refused(root: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"numbered has no split 'train\[3:3\]'"):
        open_train(config(root, "numbered", train_split="train[3:3]"))


def test_a_damaged_file_of_a_dataset_is_reported(root, tmp_path: pathlib.Path) -> None:
    folder = pathlib.Path(shutil.copytree(root / "numbered", tmp_path / "numbered")) / "1.0.0"
    source = open_source(config(tmp_path, "numbered"), split="train")
    for path in folder.glob("*array_record*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((OSError, ValueError), match="numbered train"):
        [source.read(i) for i in range(len(source))]
    with pytest.raises(ValueError, match="numbered train") as error:
        open_train(config(tmp_path, "numbered"))
    assert "\n" not in str(error.value)
