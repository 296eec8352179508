"""What a model learned, as arrays: filters of the patch embedding, similarity of positions."""

import numpy as np

from vit_jax.models.model import Model


def filters(model: Model, *, count: int = 28) -> np.ndarray:
    """Principal components of the patch embedding's filters, as images in [0, 1].

    Returns (count, height, width, C), most important first; fewer if the patch has fewer pixels.
    Paper, figure 7 left.
    """
    kernel = np.asarray(model.patch_kernel, np.float64)  # (h, w, C, D)
    flat = kernel.reshape(-1, kernel.shape[-1]).T
    _, _, components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    images = components[:count].reshape(-1, *kernel.shape[:3])
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    return (images - low) / np.maximum(high - low, 1e-12)


def position_similarity(model: Model) -> np.ndarray:
    """Cosine similarity of the positions of all pairs of patches: (rows, columns, rows, columns).

    Paper, figure 7 centre. Raises ValueError for a model that adds no positions at its input.
    """
    table = model.position_table()
    if table is None:
        raise ValueError(
            f"the model has position {model.options.position!r}: it adds no positions at its input"
        )
    rows, columns = model.options.grid
    patches = np.asarray(table, np.float64)[0, -rows * columns :]
    unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)
