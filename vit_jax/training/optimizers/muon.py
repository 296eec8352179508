"""Muon: momentum whose matrices are made orthogonal; everything else follows AdamW.

"Muon is Scalable for LLM Training" (arXiv 2502.16982), with the iteration of Keller Jordan
(https://kellerjordan.github.io/posts/muon/). Shapes: L layers, m and n the sides of a matrix.
"""

import dataclasses
import math
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

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
    nesterov: bool = False  # look ahead by one step of momentum
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
        labels = jax.tree.map(lambda matrix: "muon" if matrix else "adam", is_matrix)
        rules = {"muon": self._orthogonal(params), "adam": scale_by_adam(self)}
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
            return jax.tree.map(self._one, contract.paths(moments), moments), state

        return optax.GradientTransformation(average.init, update)

    def _one(self, path: str, moment: jax.Array) -> jax.Array:
        """The update of one parameter."""
        matrix = as_matrices(path, moment)
        orthogonal = newton_schulz(
            matrix,
            coefficients=COEFFICIENTS[self.coefficients],
            dtype=jnp.dtype(self.iteration_dtype),
        )
        scale = _RMS * math.sqrt(max(matrix.shape[-2:]))
        return (scale * orthogonal.astype(jnp.float32)).reshape(moment.shape).astype(moment.dtype)


def as_matrices(path: str, array: jax.Array) -> jax.Array:
    """A kernel as matrices (m, n), or (L, m, n) where it is stacked: inputs times outputs.

    The output of attention has the heads on its input side; the pixels of a patch are inputs.
    """
    shape = array.shape[1:] if contract.is_stacked(path) else array.shape
    inputs = 1 if re.search(r"qkv/kernel$", path) else len(shape) - 1
    sides = math.prod(shape[:inputs]), math.prod(shape[inputs:])
    return array.reshape(*array.shape[: array.ndim - len(shape)], *sides)


def newton_schulz(
    matrices: jax.Array,  # (..., m, n)
    *,
    coefficients: tuple[tuple[float, float, float], ...],
    dtype: jnp.dtype,
) -> jax.Array:
    """Matrices (..., m, n) with the same singular vectors and singular values near 1."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.astype(dtype)
    x = x.mT if tall else x  # the smaller side is the one that is squared
    norm = jnp.sqrt(jnp.square(x.astype(jnp.float32)).sum(axis=(-2, -1), keepdims=True))
    x = (x.astype(jnp.float32) / jnp.maximum(norm, _EPS)).astype(dtype)
    for a, b, c in coefficients:
        square = _product(x, x.mT).astype(dtype)
        # Sums are rounded once, as by PyTorch's addmm.
        factor = (b * square.astype(jnp.float32) + c * _product(square, square)).astype(dtype)
        x = (a * x.astype(jnp.float32) + _product(factor, x)).astype(dtype)
    return x.mT if tall else x


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, preferred_element_type=jnp.float32)
