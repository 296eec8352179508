"""The expected calibration error, by its definition."""

import jax.numpy as jnp
import numpy as np

from vit_jax.objectives import calibration


def by_definition(confidence: np.ndarray, hits: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, with 15 bins (low, high]."""
    total, edges = 0.0, np.linspace(0, 1, 16)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gap = abs(hits[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(confidence) * gap
    return total


def test_batches_with_padding_add_up_to_the_definition() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(1000).astype(np.float32)
    hits = (rng.random(1000) < confidence**2).astype(np.float32)
    padded = [np.append(x, np.full(24, np.nan, np.float32)) for x in (confidence, hits)]
    mask, totals = np.arange(1024) < 1000, np.zeros(calibration.BINS)
    for first in range(0, 1024, 128):
        c, h, m = (jnp.asarray(x[first : first + 128]) for x in (*padded, mask))
        totals += np.asarray(calibration.gaps(c, h, mask=m))
    found = calibration.expected_error(totals, count=1000)
    np.testing.assert_allclose(found, by_definition(confidence, hits), rtol=1e-4)
    assert found > 0.1


def test_a_confidence_on_a_border_is_in_the_bin_below() -> None:
    """(low, high], as in the paper: 0.2 is the upper end of the third of 15 bins."""
    confidence = jnp.asarray([0.2, 0.21, 0.0])
    found = calibration.gaps(confidence, jnp.zeros(3), mask=jnp.ones(3, bool))
    np.testing.assert_allclose(found[2:4], [-0.2, -0.21], rtol=1e-6)


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    certain, counts = jnp.ones(4), jnp.ones(4, bool)
    for hits, wanted in ((jnp.ones(4), 0.0), (jnp.zeros(4), 1.0)):
        totals = np.asarray(calibration.gaps(certain, hits, mask=counts))
        assert calibration.expected_error(totals, count=4) == wanted
