"""From the path of an array to the mesh axes that split it.

The same rules apply to parameters, gradients, moments and averages, because their paths end in the
path of a parameter. `tensor` splits heads and MLP columns (Megatron-LM, arXiv 1909.08053, section
3). `fsdp` then splits the first of the other axes if it divides it, which is that of the input
features of a dense kernel, else the largest that it divides; but never the layer axis, over which
the model scans. Small arrays, such as biases and norms, stay whole: gathering them one by one would
take longer than it saves.
"""

import math
import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vit_jax.models import stack

# The end of a parameter's path, and the axis that `tensor` splits.
TENSOR_AXIS = (
    (r"attention/qkv/kernel$", -2),  # (..., D, 3, H, d): heads
    (r"attention/qkv/bias$", -2),
    (r"attention/out/kernel$", -3),  # (..., H, d, D): heads
    (r"mlp/fc1/kernel$", -1),  # (..., D, M): columns
    (r"mlp/fc1/bias$", -1),
    (r"mlp/fc2/kernel$", -2),  # (..., M, D): rows
    (r"attention/qkv/lora/b$", -2),  # (..., rank, 3, H, d): heads
    (r"attention/out/lora/a$", -3),  # (..., H, d, rank): heads
    (r"mlp/fc1/lora/b$", -1),  # (..., rank, M): columns
    (r"mlp/fc2/lora/a$", -2),  # (..., M, rank): rows
    (r"head/kernel$", -1),  # (D, K): classes
    (r"head/bias$", -1),
)

SMALLEST = 65_536  # elements, in one layer, of an array that `fsdp` splits


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of a tree of arrays or shapes."""

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def placed_shapes(tree: Any, mesh: Mesh) -> Any:
    """The tree of shapes with a sharding for every leaf."""
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        tree,
        tree_shardings(tree, mesh),
    )


def spec(path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> P:
    """The mesh axis of every array axis. An array axis that cannot be divided is not split."""
    axes: list[str | None] = [None] * len(shape)
    if path == "key":  # two words that every device needs
        return P(*axes)
    for pattern, axis in TENSOR_AXIS:
        if not re.search(pattern, path) or len(shape) < -axis:  # a factored moment has fewer axes
            continue
        if shape[axis] % mesh.shape["tensor"] == 0:
            axes[axis] = "tensor" if mesh.shape["tensor"] > 1 else None
    first = 1 if stack.is_stacked(path) else 0
    free = [i for i in range(first, len(shape)) if axes[i] is None]
    fits = [i for i in free if shape[i] % mesh.shape["fsdp"] == 0]
    if fits and mesh.shape["fsdp"] > 1 and math.prod(shape[first:]) >= SMALLEST:
        axes[first if first in fits else max(fits, key=lambda i: shape[i])] = "fsdp"
    return P(*axes)
