"""The dataset that ships with the package, and the script that rebuilds it."""

import gzip
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

import vit_jax.data
from tests.patience import limit
from vit_jax.data.arrays import ArraySource
from vit_jax.data.opening import open_eval, open_source, open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.preprocess import decode

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_embedded_splits_are_balanced_and_described() -> None:
    data = DataConfig()
    train, test = open_train(data), open_eval(data)
    for source, per_class in ((train, 2000), (test, 500)):
        assert isinstance(source, ArraySource)
        assert len(source) == 10 * per_class == len(source.labels)
        assert np.bincount(source.labels).tolist() == [per_class] * 10
        assert ", ".join(source.class_names) == (
            "T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot"
        )
        assert source.gather(np.array([7, 9]), channels=1).shape == (2, 28, 28, 1)
        assert source.images.shape == (10 * per_class, 28, 28)
        record = source.read(7)
        assert record.label == source.labels[7]
        np.testing.assert_array_equal(decode(record.data), source.gather(np.array([7]))[0])
    with pytest.raises(ValueError, match="no split 'val': choose train or test"):
        open_source(data, split="val")


def test_embedded_images_are_the_published_ones(shared: pathlib.Path) -> None:
    expected = np.load(shared / "data" / "fashion_mnist_20k_5000.npz")
    for split in ("train", "test"):
        source = open_source(DataConfig(), split=split)
        assert isinstance(source, ArraySource)
        np.testing.assert_array_equal(source.images, expected[f"x_{split}"])
        np.testing.assert_array_equal(source.labels, expected[f"y_{split}"])


def test_the_licence_is_beside_the_images() -> None:
    folder = pathlib.Path(vit_jax.data.__file__).parent / "embedded"
    text = (folder / "LICENSE").read_text()
    assert "MIT License" in text and "2017 Zalando SE" in text


def test_the_script_takes_the_first_images_of_each_class(tmp_path: pathlib.Path) -> None:
    script = ROOT / "scripts" / "build_embedded_dataset.py"
    if not script.is_file():
        pytest.skip("the package is tested without its repository")
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    labels = np.array([1, 0, 1, 1, 0, 2], np.uint8)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            file = tmp_path / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(header + array.tobytes()))
    output = tmp_path / "out.npz"
    command = [sys.executable, str(script), str(tmp_path), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=limit(60))
    arrays = np.load(output)
    np.testing.assert_array_equal(arrays["x_train"], images)
    np.testing.assert_array_equal(arrays["y_test"], labels)
