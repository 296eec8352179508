"""Muon: momentum whose matrices are made orthogonal; everything else follows AdamW.

"Muon is Scalable for LLM Training" (arXiv 2502.16982), with the iteration of Keller Jordan
(https://kellerjordan.github.io/posts/muon/). Shapes: L layers, m and n the sides of a matrix.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P

from vit_jax.models import stack
from vit_jax.parallel import rules
from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.adam import scale_by_adam
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay

# Five steps of X <- a X + (b A + c A A) X with A = X X^T: coefficients of modded-nanogpt, and the
# one triple of the original, five times.
COEFFICIENTS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "original": ((3.4445, -4.7750, 2.0315),) * 5,
}
_EPS = 1e-7  # smallest norm that a matrix is divided by
_RMS = 0.2  # of an update of AdamW, which Muon's updates are scaled to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Muon(WeightDecay):
    """Orthogonal momentum for the matrices that `matrices` names, AdamW for the rest.

    Updates have the size of AdamW's, so that its rates and decays serve (arXiv 2502.16982,
    equation 4). A kernel (..., in, out) is one matrix for each layer; heads and the three parts of
    `qkv` are joined on its output side, as in timm.
    """

    momentum: float = 0.95  # decay of the average of gradients
    nesterov: bool = False  # look ahead by one step of momentum; then the rest follows NAdamW
    coefficients: Literal["quintic", "original"] = "quintic"  # of the iteration
    iteration_dtype: MomentDtype = "bfloat16"  # of the products of the iteration
    # Regular expressions of the paths that are matrices.
    matrices: tuple[str, ...] = (r"blocks/.*kernel$",)
    b1: float = 0.9  # AdamW's decay of the first moment
    b2: float = 0.95  # AdamW's decay of the second moment
    eps: float = 1e-8  # AdamW's
    moment_dtype: MomentDtype = "float32"  # of the average of gradients, and AdamW's first moment

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        contract.check_fraction(momentum=self.momentum)
        is_matrix = contract.matches(params, self.matrices, field="matrices")
        _check_matrices(params, is_matrix)
        labels = jax.tree.map(lambda matrix: "muon" if matrix else "adam", is_matrix)
        rules = {
            "muon": self._orthogonal(params),
            "adam": scale_by_adam(self, look_ahead=self.nesterov),
        }
        return optax.chain(
            optax.partition(rules, labels),
            self.decay(params),
            optax.scale_by_learning_rate(schedule),
        )

    @property
    def _dtype(self) -> jnp.dtype:
        return jnp.dtype(self.moment_dtype)

    def _orthogonal(self, params: Any) -> optax.GradientTransformation:
        average = optax.ema(self.momentum, debias=False, accumulator_dtype=self._dtype)

        def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            moments, state = average.update(gradients, state, params)
            if self.nesterov:
                moments = jax.tree.map(
                    lambda g, m: (1 - self.momentum) * g + self.momentum * m, gradients, moments
                )
            return self._made_orthogonal(moments), state

        return optax.GradientTransformation(average.init, update)

    def _made_orthogonal(self, moments: Any) -> Any:
        """The updates of a tree of moments.

        Matrices of the same sides are one batch, whatever parameters they belong to. Each device
        makes some matrices of a batch orthogonal, so the iteration needs no other device.
        """
        leaves, treedef = jax.tree.flatten(moments)
        paths = jax.tree.leaves(contract.paths(moments))
        matrices = [as_matrices(path, leaf) for path, leaf in zip(paths, leaves, strict=True)]
        updates: list[jax.Array] = [None] * len(leaves)  # type: ignore[list-item]
        for members in _of_equal_sides(matrices):
            batch = [_wide(matrices[i]).astype(jnp.dtype(self.iteration_dtype)) for i in members]
            counts = np.cumsum([len(part) for part in batch])[:-1]
            made = spread_over_devices(
                lambda x: newton_schulz(
                    x,
                    coefficients=COEFFICIENTS[self.coefficients],
                    dtype=jnp.dtype(self.iteration_dtype),
                ),
                jnp.concatenate(batch),
                sides=_sides(paths[members[0]], leaves[members[0]].shape),
            )
            for i, part in zip(members, jnp.split(made, counts), strict=True):
                updates[i] = self._scaled(part, matrices[i].shape, leaves[i])
        return jax.tree.unflatten(treedef, updates)

    def _scaled(self, made: jax.Array, shape: tuple[int, ...], moment: jax.Array) -> jax.Array:
        """The update of a parameter: orthogonal matrices (L, m, n), as wide as they are high."""
        made = made if shape[-2] <= shape[-1] else made.mT
        scale = _RMS * math.sqrt(max(shape[-2:]))
        return (scale * made.astype(jnp.float32)).reshape(moment.shape).astype(moment.dtype)


def _check_matrices(params: Any, is_matrix: Any) -> None:
    """Raises ValueError if a bias, or a parameter of one axis in each layer, is named a matrix."""
    leaves = (contract.paths(params), params, is_matrix)
    for path, leaf, matrix in zip(*map(jax.tree.leaves, leaves), strict=True):
        axes = len(leaf.shape) - int(stack.is_stacked(path))
        if matrix and (axes < 2 or path.endswith("bias")):
            raise ValueError(
                f"config.optimizer.matrices match {path}, which is no matrix: name kernels, such as"
                " blocks/.*kernel$"
            )


def _of_equal_sides(matrices: list[jax.Array]) -> list[list[int]]:
    """The indices of the matrices whose sides are the same, in any order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        groups.setdefault(tuple(sorted(matrix.shape[-2:])), []).append(index)
    return list(groups.values())


def _wide(matrix: jax.Array) -> jax.Array:
    """Matrices (m, n) or (L, m, n) as (L, smaller side, larger side)."""
    matrix = matrix if matrix.ndim == 3 else matrix[None]
    return matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT


def spread_over_devices(
    function: Callable[[jax.Array], jax.Array], batch: jax.Array, *, sides: P
) -> jax.Array:
    """`function` of a batch (N, m, n) whose items are independent, on all devices of the mesh.

    The batch is padded by zeros to a multiple of the devices. `sides` are the mesh axes that split
    the items of the batch and of the result.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(batch)
    missing = -len(batch) % mesh.size
    # Otherwise the compiler splits what makes the batch too, and gathers it for its other uses.
    whole = jax.lax.with_sharding_constraint(batch, P(None, *sides))
    padded = jnp.pad(whole, [(0, missing), *[(0, 0)] * (batch.ndim - 1)])
    spread = P(mesh.axis_names)
    made = function(jax.lax.with_sharding_constraint(padded, spread))
    made = jax.lax.with_sharding_constraint(made, spread)
    # Every device gets its part of all items before the padding is cut off, which would otherwise
    # move items between devices one by one.
    return jax.lax.with_sharding_constraint(made, P(None, *sides))[: len(batch)]


def _sides(path: str, shape: tuple[int, ...]) -> P:
    """The mesh axes of the smaller and of the larger side of a parameter's matrices.

    They are those of the parameter, except where several axes of it are one side: that side has the
    mesh axis of the first of them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return P(None, None)
    first = int(stack.is_stacked(path))
    inputs, outputs = _inputs_and_outputs(path, shape[first:])
    names = _inputs_and_outputs(path, tuple(rules.spec(path, shape, mesh))[first:])
    of_sides = [axes[0] for axes in names]
    return P(*of_sides if math.prod(inputs) <= math.prod(outputs) else reversed(of_sides))


def as_matrices(path: str, array: jax.Array) -> jax.Array:
    """A kernel as matrices (m, n), or (L, m, n) where it is stacked: inputs times outputs.

    The output of attention has the heads on its input side; the pixels of a patch are inputs.
    """
    layers = array.shape[: int(stack.is_stacked(path))]
    inputs, outputs = _inputs_and_outputs(path, array.shape[len(layers) :])
    return array.reshape(*layers, math.prod(inputs), math.prod(outputs))


def _inputs_and_outputs(path: str, axes: tuple[Any, ...]) -> tuple[Any, Any]:
    """The axes of one layer's kernel, or anything that there is for each axis, by side."""
    inputs = 1 if re.search(r"qkv/kernel$", path) else len(axes) - 1
    return axes[:inputs], axes[inputs:]


def newton_schulz(
    matrices: jax.Array,  # (..., m, n), m at most n
    *,
    coefficients: tuple[tuple[float, float, float], ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Matrices (..., m, n) with the same singular vectors and singular values near 1."""
    x = matrices.astype(dtype)
    norm = jnp.sqrt(jnp.square(x.astype(jnp.float32)).sum(axis=(-2, -1), keepdims=True))
    norm = norm.astype(dtype).astype(jnp.float32)  # as PyTorch's norm of such an array
    x = (x.astype(jnp.float32) / jnp.maximum(norm, _EPS)).astype(dtype)
    for a, b, c in coefficients:
        square = _product(x, x.mT).astype(dtype)
        # Sums are rounded once, as by PyTorch's addmm.
        factor = (b * square.astype(jnp.float32) + c * _product(square, square)).astype(dtype)
        x = (a * x.astype(jnp.float32) + _product(factor, x)).astype(dtype)
    return x


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)
