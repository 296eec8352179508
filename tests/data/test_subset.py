"""Training on some images of each class."""

import numpy as np
import pytest

from vit_jax.data.arrays import ArraySource
from vit_jax.data.opening import open_train
from vit_jax.data.options import DataConfig
from vit_jax.data.subset import of_each_class

LABELS = np.asarray([0, 1, 0, 1, 0, 0, 1, 0, 0], np.int32)


def source() -> ArraySource:
    images = np.arange(9, dtype=np.uint8)[:, None, None]
    return ArraySource(name="toy", class_names=("cat", "dog"), images=images, labels=LABELS)


def test_every_class_has_as_many_images_at_equal_distances() -> None:
    found = of_each_class(source(), 2)
    records = [found.read(i) for i in range(len(found))]
    assert [int(record.data.item()) for record in records] == [0, 1, 3, 5]
    assert [record.label for record in records] == [0, 1, 1, 0]
    assert of_each_class(source(), 0).identity() == found.identity()


def test_a_class_with_fewer_images_is_named() -> None:
    with pytest.raises(
        ValueError, match="per_class is 4, but toy has only 3 images of class 'dog'"
    ):
        of_each_class(source(), 4)
    with pytest.raises(ValueError, match="per_class is -1: it must not be negative"):
        of_each_class(source(), -1)


def test_a_config_trains_on_images_of_each_class() -> None:
    found = open_train(DataConfig(per_class=200))
    labels = [found.read(i).label for i in range(len(found))]
    assert np.bincount(labels).tolist() == [200] * 10
