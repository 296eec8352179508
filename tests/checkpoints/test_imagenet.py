"""The names of ImageNet-1k: in the order of the logits of released models, each of one class."""

import numpy as np
import pytest

from vit_jax.checkpoints import imagenet
from vit_jax.models import zoo


def test_the_order_is_that_of_released_models(shared) -> None:
    known = np.load(shared / "data/vit_Ti16_in1k_logits_200.npz")
    synsets = [imagenet.synsets()[label] for label in known["labels"]]
    assert synsets == [file.partition("_")[0] for file in known["files"].tolist()]


def test_every_class_has_a_name_of_its_own() -> None:
    names = [name.casefold() for name in imagenet.names()]
    assert len(set(names)) == len(set(imagenet.synsets())) == imagenet.COUNT
    assert list(imagenet.synsets()) == sorted(imagenet.synsets())
    assert [names[i] for i in (0, 1, 134, 284, 517, 999)] == [
        *("tench", "goldfish", "crane (bird)", "siamese cat", "crane (machine)", "toilet tissue")
    ]


@pytest.mark.parametrize(
    ("classes", "own", "shown"),
    [
        (1000, (), "tench"),
        (1000, imagenet.synsets(), "tench"),
        (1000, tuple(f"kind {i}" for i in range(1000)), "kind 0"),
        (3, (), "0"),
        (0, (), None),
    ],
)
def test_a_model_without_names_of_1000_classes_gets_those_of_imagenet(classes, own, shown) -> None:
    model = zoo.create("Ti/16", image_size=16, width=8, depth=1, num_heads=1, num_classes=classes)
    model.class_names = own
    found = imagenet.class_names(model)
    assert len(found) == classes and (found[0] if found else None) == shown
