"""Features of the places of images as colours: their first three principal components."""

import numpy as np

from vit_jax.analysis.learned import with_fixed_signs

OUTLIERS = 1.0  # percent of the values at either end that have the darkest or brightest colour


def colours(features: np.ndarray) -> np.ndarray:
    """The first three principal components of features, as colours in [0, 1] (B, h, w, 3).

    `features` are (B, h, w, D) of several images. The components are those of all places of all
    images together, so equal colours mean similar features in all of them. Each component is one
    channel: its values between the percentiles `OUTLIERS` and 100 - `OUTLIERS` are scaled to
    [0, 1]. A component that does not vary is 0.5.
    """
    flat = np.asarray(features, np.float64).reshape(-1, features.shape[-1])
    flat = flat - flat.mean(axis=0)
    # The covariance is small, while there may be a million places.
    _, vectors = np.linalg.eigh(flat.T @ flat)
    components = with_fixed_signs(vectors[:, :-4:-1].T)
    values = flat @ components.T
    values = np.pad(values, ((0, 0), (0, 3 - values.shape[1])))
    low, high = np.percentile(values, (OUTLIERS, 100 - OUTLIERS), axis=0)
    varies = high - low > 1e-12 * max(float(np.abs(values).max()), 1e-300)
    scaled = (values - low) / np.where(varies, high - low, 1.0)
    return np.where(varies, scaled.clip(0, 1), 0.5).reshape(*features.shape[:-1], 3)
