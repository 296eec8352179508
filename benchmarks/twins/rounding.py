"""AdamW that rounds its update as PyTorch does, to find out whether that is why a twin parts.

PyTorch multiplies a parameter by `1 - rate * decay`, rounds, adds the update, and rounds again.
Here the sum of decay and update is added, and XLA rounds a multiplication and an addition once.
"""

import contextlib
import dataclasses
import unittest.mock
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.training import optimizer
from vit_jax.training.optimizers import contract


@contextlib.contextmanager
def as_pytorch() -> Iterator[None]:
    """Every design inside this context has an AdamW that rounds as PyTorch's does."""
    with unittest.mock.patch.object(optimizer, "make_optimizer", _make_optimizer):
        yield


_original = optimizer.make_optimizer


def _make_optimizer(
    config: optimizer.OptimizerConfig, schedule: optax.Schedule, params: Any, **arguments: Any
) -> optax.GradientTransformation:
    rule: Any = config.rule
    decays = contract.matches(params, rule.decay_mask, field="decay_mask")
    bare = dataclasses.replace(config, rule=dataclasses.replace(rule, weight_decay=0.0))
    moves = _original(bare, schedule, params, **arguments)

    def init(params: Any) -> Any:
        return moves.init(params), jnp.zeros((), jnp.int32)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        inner, count = state
        updates, inner = moves.update(grads, inner, params)
        rate = schedule(count).astype(jnp.float32)

        def difference(u: jax.Array, p: jax.Array, decayed: bool) -> jax.Array:
            kept = _rounded(p * (1 - rate * rule.weight_decay), count) if decayed else p
            # The difference of two such near numbers is exact, so adding it to p gives the sum.
            return _rounded(_rounded(kept + _rounded(u, count), count) - p, count)

        return jax.tree.map(difference, updates, params, decays), (inner, count + 1)

    return optax.GradientTransformation(init, update)


def _rounded(x: jax.Array, count: jax.Array) -> jax.Array:
    # The compiler cannot know that `count >> 30` is 0. So it does not fuse a multiplication before
    # this with an addition after it.
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    return jax.lax.bitcast_convert_type(bits ^ (count >> 30), jnp.float32)
