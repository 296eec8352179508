"""What a model attends to, as arrays.

Shapes: L layers, B images, H heads, T tokens, P of them before the N patches, in rows and columns
of a grid. Weights (L, B, H, T, T) are those of `Model.attention_weights`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.interpolation import contract, matrix


def distances(grid: tuple[int, int], covered: tuple[int, int]) -> np.ndarray:
    """Distances (N, N) between the centres of patches, in pixels of the input.

    `covered` are the height and width in pixels that the grid covers.
    """
    down, right = (size / number for size, number in zip(covered, grid, strict=True))
    y, x = np.mgrid[: grid[0], : grid[1]].reshape(2, -1)
    return np.hypot(down * (y[:, None] - y), right * (x[:, None] - x))


def sum_of_distances(weights: jax.Array, between: jax.Array) -> jax.Array:
    """The sum over B images of the mean distance to which patches attend: (L, H) float32.

    A patch attends to the patches at the distances `between` (N, N). Other tokens are left out, and
    the weights of each patch are divided by their sum over the patches. Paper, figure 7 right.
    """
    patches = weights[..., -between.shape[0] :, -between.shape[1] :]
    # A head may give all of its weight to the class token: then no patch is reached.
    shares = patches / jnp.maximum(patches.sum(axis=-1, keepdims=True), 1e-30)
    reached = jnp.einsum("lbhqk,qk->lbhq", shares, between.astype(shares.dtype))
    return reached.mean(axis=-1).sum(axis=1)


def rollout(weights: jax.Array, *, prefix: int, class_token: bool) -> jax.Array:
    """How much of each patch reaches the output through all layers: (B, N) float32, of sum 1.

    Attention rollout (Abnar and Zuidema, arXiv 2005.00928; ViT paper, appendix D.7): for each layer
    the mean over the heads plus the identity of the residual branch, divided by 2 so that rows sum
    to 1; then the product over the layers. The result is the row of the class token. Of a model
    whose output reads the patches instead (not `class_token`), it is the mean over their rows.
    """
    tokens = weights.shape[-1]
    identity = jnp.eye(tokens)[None]

    def layer(reached: jax.Array, attention: jax.Array) -> tuple[jax.Array, None]:
        mixed = (attention.mean(axis=1) + identity) / 2
        return jnp.einsum("bij,bjk->bik", mixed, reached, precision="highest"), None

    start = jnp.broadcast_to(identity, (weights.shape[1], tokens, tokens))
    reached, _ = jax.lax.scan(layer, start, weights)
    row = reached[:, 0] if class_token else reached[:, prefix:].mean(axis=1)
    patches = row[:, prefix:]
    return patches / patches.sum(axis=-1, keepdims=True)


def of_class_token(weights: jax.Array, *, prefix: int) -> jax.Array:
    """The attention of the class token to each patch: (L, B, H, N)."""
    return weights[..., 0, prefix:]


def over_image(
    maps: np.ndarray, *, grid: tuple[int, int], covered: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """Maps (..., N) of patches at every pixel of an image: (..., height, width) float64.

    They are interpolated linearly between the centres of patches. Pixels beyond `covered`, the
    height and width that the grid covers, are NaN: no patch has seen them.
    """
    rows, columns = (matrix(n, pixels, "bilinear") for n, pixels in zip(grid, covered, strict=True))
    values = np.asarray(maps, np.float64).reshape(*maps.shape[:-1], *grid)
    seen = contract("ih,jw,...hw->...ij", (rows, columns), values)
    beyond = [(0, whole - part) for whole, part in zip(size, covered, strict=True)]
    return np.pad(seen, [(0, 0)] * (seen.ndim - 2) + beyond, constant_values=np.nan)
