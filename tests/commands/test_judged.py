"""The confusion matrix and the worst mistakes of labelled images."""

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny
from vit_jax.analysis import figures
from vit_jax.analysis.contract import NoPicture
from vit_jax.commands.judged import judge
from vit_jax.data.record import UNKNOWN

NAMES = ("a", "b", "c", "d", "e")
SHOWN = ("b", "a", "e", "d", "c")  # the same classes in the order of the data


@pytest.fixture(scope="module")
def model():
    model = tiny.model()
    model.class_names = NAMES
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 16, 24, 3), np.uint8)


def judged(model, images, labels, *, class_names=SHOWN):
    def compute(function, places):
        for first in range(0, len(places), 25):
            pixels = np.asarray(images[places[first : first + 25]], np.float32) / 127.5 - 1
            yield np.asarray(function(model, jax.numpy.asarray(pixels)))

    return judge(model, dict(enumerate(labels)), class_names=class_names, compute=compute)


def test_losses_and_counts_equal_a_plain_computation(model, images):
    labels = np.random.default_rng(1).integers(0, 5, 40)
    labels[3] = UNKNOWN
    found = judged(model, images, labels)
    logits = np.asarray(model(jax.numpy.asarray(images / 127.5 - 1, np.float32)), np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    kept = labels != UNKNOWN
    true = np.array([NAMES.index(SHOWN[label]) for label in labels[kept]])
    np.testing.assert_array_equal(found.labels, true)
    np.testing.assert_array_equal(found.places, np.flatnonzero(kept))
    losses = -np.log(shares[kept][np.arange(39), true])
    assert_close(found.losses, losses, atol=1e-4)
    counts = np.zeros((5, 5), int)
    for label, answer in zip(true, shares[kept].argmax(1), strict=True):
        counts[label, answer] += 1
    np.testing.assert_array_equal(found.confusion(), counts)
    wrong = shares[kept].argmax(1) != true
    assert found.right == 39 - wrong.sum()
    assert list(found.worst(3)) == list(np.argsort(-np.where(wrong, losses, -1))[:3])
    drawn = figures.confusion(found.confusion(), found.names, note="x")
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == list(NAMES)
    assert len(drawn.axes[0].texts) == (counts > 0).sum()


def test_a_model_of_sigmoids_is_judged_by_them(model, images, monkeypatch):
    monkeypatch.setattr(model, "cross_entropy", "sigmoid")
    labels = np.random.default_rng(1).integers(0, 5, 40)
    found = judged(model, images, labels, class_names=NAMES)
    logits = np.asarray(model(jax.numpy.asarray(images / 127.5 - 1, np.float32)), np.float64)
    assert_close(found.probabilities, 1 / (1 + np.exp(-logits.max(axis=1))))
    signs = np.where(np.arange(5) == labels[:, None], -1, 1)
    assert_close(found.losses, np.log1p(np.exp(signs * logits)).sum(axis=1), atol=1e-4)


def test_classes_of_equal_names_are_told_apart_by_their_numbers(images):
    model = tiny.model()
    model.class_names = ("crane", "b", "c", "d", "crane")
    for own in (model.class_names, NAMES):
        labels = list(range(5))
        found = judged(model, images, labels, class_names=own)
        # In another order the name does not say which of them it is.
        assert found.labels.tolist() == (labels if own == model.class_names else [1, 2, 3])
    found = judged(model, images, labels, class_names=("b", "crane", "b", "c", "d"))
    assert found.labels.tolist() == [2, 3] and found.places.tolist() == [3, 4]


def test_images_without_a_known_class_are_not_judged(model, images):
    with pytest.raises(NoPicture, match="no image has a label"):
        judged(model, images, [UNKNOWN, UNKNOWN])
    with pytest.raises(NoPicture, match="several classes"):
        judged(model, images, [np.ones(5, np.uint8)])
    with pytest.raises(NoPicture, match="no head"):
        judged(tiny.model(num_classes=0, pool="gap"), images, [0])
