"""TFDS is read without TensorFlow; a message says how to prepare a dataset that is not prepared."""

import json
import pathlib
import shutil
import sys

import pytest

from vit_jax.data.changes import changes
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.pipeline import eval_batches
from vit_jax.data.preprocess import EvalTransform, decode
from vit_jax.data.sources import TfdsData


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A data_dir with `tiny_images`: 10 images of cats and dogs to train on, 3 to validate."""
    from tests.data import tfds_datasets

    root = tmp_path_factory.mktemp("tfds")
    animals = tfds_datasets.tfds.features.ClassLabel(names=["cat", "dog"])
    splits = {"train": [i % 2 for i in range(10)], "validation": [0, 1, 0]}
    tfds_datasets.prepare(root, "tiny_images", animals, splits)
    return root


def config(data_dir: pathlib.Path, name: str = "tiny_images") -> DataConfig:
    return DataConfig(source=TfdsData(name=name, path=str(data_dir)))


def test_a_prepared_dataset_is_read_at_random_without_tensorflow(prepared: pathlib.Path) -> None:
    source = open_train(config(prepared))
    assert len(source) == 10 and source.class_names == ("cat", "dog")
    assert source.name == "tiny_images train"
    record = source.read(4)
    assert isinstance(record.data, bytes) and record.path == "tiny_images train[4]"
    values = {int(decode(source.read(i).data)[0, 0, 0]) for i in range(10)}
    assert values == set(range(10))
    for index in range(10):
        record = source.read(index)
        assert record.label == decode(record.data)[0, 0, 0] % 2
    assert "tensorflow" not in sys.modules


def test_sub_splits_and_versions_are_read(prepared: pathlib.Path) -> None:
    assert len(open_source(config(prepared), split="train[:70%]")) == 7
    assert len(open_source(config(prepared, "tiny_images:1.0.0"), split="train[7:]")) == 3


def test_evaluation_takes_the_validation_split(prepared: pathlib.Path) -> None:
    source = open_eval(config(prepared))
    assert source.name == "tiny_images validation"
    batches = list(eval_batches(source, EvalTransform(size=(4, 4)), batch_size=2, threads=2))
    assert [b["mask"].sum() for b in batches] == [2, 1]


def refusal(data: DataConfig, *, split: str = "train") -> str:
    with pytest.raises(ValueError) as error:
        open_source(data, split=split)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("split", ["tets", "train[:x]"])
def test_unknown_splits_are_named(prepared: pathlib.Path, split: str) -> None:
    message = refusal(config(prepared), split=split)
    assert message == f"tiny_images has no split '{split}': there are train, validation"


def test_a_known_dataset_that_is_not_prepared_names_the_command(tmp_path: pathlib.Path) -> None:
    message = refusal(config(tmp_path, "imagenet2012"))
    assert "imagenet2012 is not prepared in" in message
    command = f"`tfds build imagenet2012 --file_format=array_record --data_dir={tmp_path}`"
    assert command in message


def test_an_unknown_dataset_names_the_nearest(tmp_path: pathlib.Path) -> None:
    message = refusal(config(tmp_path, "imagenet2013"))
    assert "tfds has no dataset 'imagenet2013'" in message and "did you mean 'imagenet" in message
    assert "config.data.name is empty" in refusal(config(tmp_path, ""))


def test_an_unknown_version_names_the_known_ones(tmp_path: pathlib.Path) -> None:
    assert "only: 5.1.0" in refusal(config(tmp_path, "imagenet2012:9.9.9"))


def test_another_file_format_names_the_conversion(
    prepared: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "tiny_images" / "1.0.0"
    shutil.copytree(prepared / "tiny_images" / "1.0.0", folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (folder / "dataset_info.json").write_text(json.dumps(info))
    message = refusal(config(tmp_path))
    assert f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record" in (
        message
    )


def test_another_version_split_or_shard_is_another_identity(prepared, tmp_path) -> None:
    """The name of the data_dir does not matter."""
    here = open_source(config(prepared), split="train").identity()
    moved = pathlib.Path(shutil.copytree(prepared, tmp_path / "moved"))
    assert open_source(config(moved), split="train").identity() == here
    part = open_source(config(prepared), split="train[:50%]").identity()
    assert (here.examples, part.examples) == (10, 5)
    assert "the dataset is now tiny_images/1.0.0 train[:50%], it was tiny_images/1.0.0 train" in (
        changes(here, part)
    )
    (shard,) = moved.rglob("*train*-of-*")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(bytes(content))
    assert changes(here, open_source(config(moved), split="train").identity())
