"""The batch norm before the head of a linear probe."""

import jax
import numpy as np
import pytest

from tests.compare import assert_close
from tests.models import tiny


def test_the_head_reads_normalised_features() -> None:
    model, images = tiny.model(head_norm="batch"), tiny.images(3)
    features = np.asarray(model.features(images))
    mean, variance = (np.asarray(getattr(model.head_norm, n)[...]) for n in ("mean", "variance"))
    kernel, bias = (np.asarray(getattr(model.head, n)[...]) for n in ("kernel", "bias"))
    expected = (features - mean) / np.sqrt(variance + 1e-6) @ kernel + bias
    assert_close(model(images), expected)
    # In training, the features of the batch are normalised by their own statistics.
    trained = model(images, key=jax.random.key(0))
    own = (features - features.mean(0)) / np.sqrt(features.var(0) + 1e-6) @ kernel + bias
    assert_close(trained, own, scaled=1e-4)


def test_two_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="head_norm 'batch' is for one head"):
        tiny.options(distillation=True, class_token=True, head_norm="batch")
