"""Images for an evaluation have the labels of the model, or keep those of their dataset."""

import json

import numpy as np
import pytest

import vit_jax
from tests.models import tiny
from vit_jax.checkpoints import imagenet
from vit_jax.data.arrays import ArraySource
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.classification import Classification
from vit_jax.training.evaluation_data import relabelled


def source(*names: str) -> ArraySource:
    labels = np.arange(len(names), dtype=np.int32)
    images = np.zeros((len(names), 8, 8, 3), np.uint8)
    return ArraySource(name="data", class_names=names, images=images, labels=labels)


@pytest.mark.parametrize(
    ("names", "own", "count", "numbers"),
    [
        (("n01514859", "n01440764"), (), 1000, [7 + 1, 0]),  # a part of ImageNet-1k
        (imagenet.synsets(), (), 1000, list(range(1000))),
        (("0", "1", "10", "2"), (), 11, [0, 1, 10, 2]),  # sorted as text
        (("dog", "cat"), ("cat", "cow", "dog"), 3, [2, 0]),
        (("x", "y"), (), 2, [0, 1]),  # only by their order
    ],
)
def test_labels_are_those_of_the_model(names, own, count, numbers) -> None:
    found, note = relabelled(
        source(*names), class_names=own, num_classes=count, objective=Classification()
    )
    assert found.labels.tolist() == numbers
    assert [found.read(i).label for i in range(2)] == numbers[:2]
    assert ("by name" in note) == (names != ("x", "y"))
    assert "by number" in note if names == ("x", "y") else f"{len(names)} of" in note


@pytest.mark.parametrize(
    ("names", "own", "count"),
    [(("x", "n01440764"), (), 1000), (("1", "2"), ("a", "b", "c"), 3), (("x", "y"), (), 3)],
)
def test_a_class_that_the_model_does_not_have_is_refused(names, own, count) -> None:
    with pytest.raises(ValueError, match="train and evaluate on the same classes"):
        relabelled(source(*names), class_names=own, num_classes=count, objective=Classification())


def test_what_needs_no_head_measures_a_model_of_other_classes(recipe, tmp_path, printed) -> None:
    sizes = {"image_size": (28, 28), "patch_size": (14, 14), "num_heads": 4}
    made = tiny.model(num_classes=1000, activation="gelu_erf", **sizes)
    made.preprocessing = Preprocessing(image_size=(28, 28), crop_pct=1.0)
    vit_jax.save(made, tmp_path / "model.safetensors", layout="timm")
    near = ("--config.evaluators.near.kind=knn", "--config.evaluators.near.train_images=512")
    command = ("evaluate", "--workdir", tmp_path / "model.safetensors", "--config", recipe, *near)
    found = json.loads(printed(*command, "--only", "near", "--json"))
    assert found["near/count"] == 5000 and found["near/top1"] > 0.2
