"""What a model learned, as arrays: filters of the patch embedding, positions, relative biases."""

import numpy as np

from vit_jax.analysis.contract import NoPicture
from vit_jax.models.model import Model

NEGLIGIBLE = 1e-6  # of the largest singular value: a component that is rounding only


def filters(model: Model, *, count: int = 28, grey: bool = False) -> np.ndarray:
    """Principal components of the filters that read pixels, as images in [0, 1].

    They are those of the patch embedding, or of the root of a ResNet below it.

    Returns (count, height, width, C), most important first; fewer if the filters span fewer
    directions. Each component is scaled so that its values go from 0 to 1, and its sign makes the
    value of largest magnitude positive. With `grey`, the model was trained on grey images, so that
    only the sum over the channels matters, and C is 1. Paper, figure 7 left. Raises NoPicture if no
    filter reads pixels.
    """
    if model.patch_kernel is None:
        raise NoPicture("the first filters of this model are not known")
    kernel = np.asarray(model.patch_kernel, np.float64)  # (h, w, C, D)
    if grey:
        std = model.preprocessing.std if model.preprocessing else (1.0,) * kernel.shape[2]
        kernel = (kernel / np.reshape(std, (1, 1, -1, 1))).sum(axis=2, keepdims=True)
    flat = kernel.reshape(-1, kernel.shape[-1]).T
    _, sizes, components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    known = max(int((sizes > NEGLIGIBLE * sizes[0]).sum()), 1)
    components = with_fixed_signs(components[: min(count, known)])
    images = components.reshape(-1, *kernel.shape[:3])
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    return (images - low) / np.maximum(high - low, 1e-12)


def with_fixed_signs(components: np.ndarray) -> np.ndarray:
    """Components (N, P) whose value of largest magnitude is positive; the SVD leaves signs open."""
    largest = np.abs(components).argmax(axis=1)
    values = np.take_along_axis(components, largest[:, None], axis=1)
    return components * np.where(values < 0, -1.0, 1.0)


def position_similarity(model: Model) -> np.ndarray:
    """Cosine similarity of the positions of all pairs of patches: (rows, columns, rows, columns).

    The class token is left out. Paper, figure 7 centre. Raises NoPicture for a model that adds no
    positions at its input.
    """
    table = model.position_table()
    if table is None:
        position = getattr(model.options, "position", "none")
        raise NoPicture(
            f"the model has position {position!r}, and no table that is added to its tokens at one"
            " place"
        )
    rows, columns = model.options.grid
    patches = np.asarray(table, np.float64)[0, -rows * columns :]
    unit = patches / np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-12)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)


def relative_biases(model: Model) -> dict[str, np.ndarray]:
    """The learned biases of attention logits, for each part of the model.

    Each is (layers, heads, 2 rows - 1, 2 columns - 1): the bias by the offset of the key from the
    query. Raises NoPicture if the model has none.
    """
    tables = model.relative_biases()
    if not tables:
        raise NoPicture("the model has no tables of relative position biases")
    return {part: np.moveaxis(np.asarray(table), -1, 1) for part, table in tables.items()}
