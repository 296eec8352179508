"""What an optimizer is, and how its options select parameters by their paths.

A path joins the keys of a nested dict with "/", such as `encoder/blocks/mlp/fc1/kernel`. Below
`blocks/` the first axis of every parameter is the layer: a parameter of one layer, as other
projects have it, is one slice along that axis.
"""

import copy
import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, Self

import jax
import jax.numpy as jnp
import optax

from vit_jax.models import stack

MomentDtype = Literal["float32", "bfloat16"]

KERNELS = ("kernel$",)  # the parameters that decay unless a config says otherwise


class Rule(Protocol):
    """An entry of `OPTIMIZERS`: a dataclass whose fields are part of the config."""

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        """The transformation of clipped gradients to updates of `params`.

        Only the paths and shapes of `params` are read. Raises ValueError for a field out of range.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightDecay:
    """Base of the optimizers whose parameters decay."""

    weight_decay: float = 0.0  # times the parameter; see the optimizer for where it is added
    # How the decay goes from `weight_decay` to `weight_decay_end` during the run.
    weight_decay_schedule: Literal["constant", "cosine", "linear"] = "constant"
    weight_decay_end: float = 0.0  # cosine, linear: the decay at the end of the run
    decay_mask: tuple[str, ...] = KERNELS  # regular expressions of the decayed paths
    # (regular expression of paths, factor of their decay); the first that matches counts.
    decay_factors: tuple[tuple[str, float], ...] = ()

    _total_steps: ClassVar[int] = 0  # of the run, once `over` has set it

    def over(self, total_steps: int) -> Self:
        """The optimizer in a run of this length, which schedules of the decay need."""
        bound = copy.copy(self)
        object.__setattr__(bound, "_total_steps", total_steps)
        return bound

    @property
    def any_decay(self) -> bool:
        """Whether there is a decay at some step."""
        return max(self.weight_decay, self.weight_decay_end) > 0

    def decays(self, params: Any) -> Any:
        """A bool for every parameter: whether it decays. Raises ValueError for a bad field."""
        check_positive(weight_decay=self.weight_decay, weight_decay_end=self.weight_decay_end)
        if self.weight_decay_end and self.weight_decay_schedule == "constant":
            raise ValueError(
                f"config.optimizer.weight_decay_end is {self.weight_decay_end}, but the decay is"
                " constant: set config.optimizer.weight_decay_schedule to cosine or linear"
            )
        # The default may match nothing: a model need not have kernels.
        default = self.decay_mask == KERNELS
        return matches(params, self.decay_mask, field="decay_mask", may_miss=default)

    def decay_rates(self, params: Any) -> Any:
        """For every parameter the factor of its decay; 0 if it does not decay.

        Raises ValueError for a bad field, and for a factor that only parameters without decay have.
        """
        mask = self.decays(params)
        for pattern, factor in self.decay_factors:
            found = matches(params, (pattern,), field="decay_factors")
            if factor and not any(jax.tree.leaves(jax.tree.map(operator.and_, found, mask))):
                raise ValueError(
                    f"config.optimizer.decay_factors: {pattern!r} matches only parameters that do"
                    " not decay: add it to config.optimizer.decay_mask, whose paths decay"
                )
        factors = first_matches(params, self.decay_factors, field="decay_factors")
        return jax.tree.map(lambda on, factor: on * factor, mask, factors)

    def decay(self, params: Any) -> optax.GradientTransformation:
        """Adds the decay times the parameter to the updates of the parameters that decay."""
        rates = self.decay_rates(params)
        parts = [
            optax.add_decayed_weights(
                self._scheduled(rate),
                mask=jax.tree.map(functools.partial(operator.eq, rate), rates),
            )
            for rate in sorted(set(jax.tree.leaves(rates)) - {0.0})
        ]
        return optax.chain(*parts) if len(parts) > 1 else (*parts, optax.identity())[0]

    def _scheduled(self, factor: float) -> float | optax.Schedule:
        """`factor` times the decay: a number, or a function of the step, int () from 0."""
        start, end, total = self.weight_decay, self.weight_decay_end, self._total_steps
        if self.weight_decay_schedule == "constant":
            return factor * start
        assert total, "the length of the run is unknown: call `over` first"

        def rate(step: jax.typing.ArrayLike) -> jax.Array:
            left = 1 - jnp.minimum(1, jnp.asarray(step, jnp.float32) / total)
            if self.weight_decay_schedule == "cosine":
                left = 0.5 * (1 - jnp.cos(jnp.pi * left))
            return factor * (end + (start - end) * left)

        return rate


def paths(params: Any) -> Any:
    """A tree like `params` with the path of each parameter."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), params
    )


def matches(params: Any, patterns: tuple[str, ...], *, field: str, may_miss: bool = False) -> Any:
    """A bool for every parameter: whether one of `patterns` matches somewhere in its path.

    Raises ValueError for a pattern that is no regular expression, and, unless `may_miss`, for one
    that matches no parameter.
    """
    names = paths(params)
    found = jax.tree.leaves(names)
    for pattern in patterns:
        try:
            hit = any(re.search(pattern, path) for path in found)
        except re.error as error:
            raise ValueError(
                f"config.optimizer.{field}: {pattern!r} is not a regular expression: {error}"
            ) from error
        if not (hit or may_miss):
            raise ValueError(
                f"config.optimizer.{field}: {pattern!r} matches no parameter:"
                f" choose from {', '.join(found)}"
            )
    return jax.tree.map(lambda path: any(re.search(p, path) for p in patterns), names)


def first_matches(params: Any, factors: tuple[tuple[str, float], ...], *, field: str) -> Any:
    """For every parameter the factor of the first pattern that matches its path, else 1.

    Raises ValueError for a factor that is negative or not finite, and as `matches` does.
    """
    for pattern, factor in factors:
        matches(params, (pattern,), field=field)
        if not (factor >= 0 and math.isfinite(factor)):
            raise ValueError(
                f"config.optimizer.{field} has {factor} for {pattern!r}: it must be finite and not"
                " negative"
            )
    return jax.tree.map(
        lambda path: next((f for pattern, f in factors if re.search(pattern, path)), 1.0),
        paths(params),
    )


def layer_norms(tree: Any) -> Any:
    """The Euclidean norm of every array of a tree, in float32; of each layer where it is stacked.

    The axes are kept, so that the result broadcasts against the array.
    """

    def norm(path: str, array: jax.Array) -> jax.Array:
        axes = tuple(range(int(stack.is_stacked(path)), array.ndim))
        squares = jnp.square(array.astype(jnp.float32))
        return jnp.sqrt(squares.sum(axis=axes, keepdims=True))

    return jax.tree.map(norm, paths(tree), tree)


def scale_by_trust_ratio(mask: Any, *, coefficient: float = 1.0) -> optax.GradientTransformation:
    """Multiplies each update by coefficient * |parameter| / |update|, where `mask` is true.

    The norms are those of one layer. A norm of zero leaves the update as it is.
    """

    def scale(adapts: bool, update: jax.Array, ours: jax.Array, theirs: jax.Array) -> jax.Array:
        if not adapts:
            return update
        both = (ours > 0) & (theirs > 0)
        ratio = jnp.where(both, coefficient * ours / jnp.where(both, theirs, 1), 1)
        return update * ratio.astype(update.dtype)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scaled = map_trained(scale, mask, updates, layer_norms(params), layer_norms(updates))
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def map_trained(function: Callable[..., Any], known: Any, updates: Any, *others: Any) -> Any:
    """`function(known, update, ...)` for every parameter that trains.

    `known` has a value for every parameter. In the other trees, optax has a MaskedNode for each
    parameter that does not train, which is kept.
    """

    def one(value: Any, update: Any, *rest: Any) -> Any:
        return update if isinstance(update, optax.MaskedNode) else function(value, update, *rest)

    return jax.tree.map(one, known, updates, *others)


def check_fraction(**fields: float) -> None:
    """Raises ValueError unless every value is in [0, 1)."""
    for field, value in fields.items():
        if not 0 <= value < 1:
            raise ValueError(f"config.optimizer.{field} is {value}: it must be in [0, 1)")


def check_positive(**fields: float) -> None:
    """Raises ValueError for a negative value."""
    for field, value in fields.items():
        if not value >= 0:
            raise ValueError(f"config.optimizer.{field} is {value}: it must not be negative")
