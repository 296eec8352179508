"""Calibration: whether the probability of the predicted class is the share of right predictions.

"On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 2. Shapes: B examples.
"""

import jax
import jax.numpy as jnp
import numpy as np

BINS = 15  # of equal width, as in the paper


def gaps(confidence: jax.Array, hits: jax.Array, *, mask: jax.Array) -> jax.Array:
    """For each bin of confidence, the sum of (hit - confidence) over its examples: float32 (BINS,).

    `confidence` (B,) is the probability of the predicted class, `hits` (B,) is 1 where that class
    is right. Bin m holds confidences in ((m - 1) / BINS, m / BINS]. Examples with a False `mask`
    (B,) do not count. The sums of batches add up to those of a dataset.
    """
    number = jnp.clip(jnp.ceil(confidence * BINS).astype(jnp.int32) - 1, 0, BINS - 1)
    gap = jnp.where(mask, hits - confidence, 0)
    return jnp.zeros(BINS, jnp.float32).at[jnp.where(mask, number, 0)].add(gap)


def expected_error(totals: np.ndarray, *, count: int) -> float:
    """The expected calibration error (ECE) in [0, 1] of `count` examples, from `gaps` (BINS,).

    It is the mean over examples of |share of hits - mean confidence| of the example's bin.
    """
    return float(np.abs(totals).sum() / count)
