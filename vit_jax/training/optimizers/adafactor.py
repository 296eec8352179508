"""Adafactor as big_vision trains with it: a factored second moment and a small first one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.models import stack
from vit_jax.training.optimizers import contract
from vit_jax.training.optimizers.contract import MomentDtype, WeightDecay

_SMALLEST = 32  # axes below this length are not factored
_DECAY_POWER = 0.8  # the second moment of step t decays by 1 - t ** -0.8
_EPS = 1e-30  # added to squared gradients


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor(WeightDecay):
    """Adafactor (Shazeer & Stern 2018), the variant of "Scaling Vision Transformers", appendix D.

    The rate is absolute, updates are not clipped, and the decay of the second moment is capped. As
    in `adamw`, the decay is multiplied by the scheduled rate: big_vision's `wd / lr`.
    """

    b1: float = 0.9  # decay of the first moment; 0: none is kept
    b2_cap: float = 0.999  # largest decay of the second moment
    moment_dtype: MomentDtype = "bfloat16"  # of the first moment

    def updates(self, schedule: optax.Schedule, params: Any, /) -> optax.GradientTransformation:
        contract.check_fraction(b1=self.b1, b2_cap=self.b2_cap)

        def decay_rate(step: jax.Array, power: float) -> jax.Array:
            t = jnp.asarray(step, jnp.float32) + 1
            return jnp.minimum(self.b2_cap, 1 - t ** (-power))

        second = optax.scale_by_factored_rms(
            min_dim_size_to_factor=_SMALLEST,
            decay_rate=_DECAY_POWER,
            epsilon=_EPS,
            decay_rate_fn=decay_rate,
        )
        second = _by_layer(second, params)
        dtype = jnp.dtype(self.moment_dtype)
        first = optax.ema(self.b1, debias=False, accumulator_dtype=dtype)
        return optax.chain(
            second,
            first if self.b1 else optax.identity(),
            self.decay(params),
            optax.scale_by_learning_rate(schedule),
        )


def _by_layer(rule: optax.GradientTransformation, params: Any) -> optax.GradientTransformation:
    """The rule for each layer of a stack by itself: the axis of the layers is never factored."""

    def label(path: str, leaf: Any) -> str:
        return f"{leaf.shape[0]} layers" if stack.is_stacked(path) else "whole"

    labels = jax.tree.map(label, contract.paths(params), params)
    kinds = set(jax.tree.leaves(labels))
    return optax.partition(
        {kind: rule if kind == "whole" else _over_layers(rule) for kind in kinds}, labels
    )


def _over_layers(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    axes = optax.FactoredState(count=None, v_row=0, v_col=0, v=0)

    def init(params: Any) -> Any:
        if not jax.tree.leaves(params):  # all of them are frozen
            return rule.init(params)
        return jax.vmap(rule.init, out_axes=axes)(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if not jax.tree.leaves(updates):
            return updates, state
        scaled: tuple[Any, Any] = jax.vmap(rule.update, in_axes=(0, axes, 0), out_axes=(0, axes))(
            updates, state, params
        )
        return scaled

    return optax.GradientTransformation(init, update)
