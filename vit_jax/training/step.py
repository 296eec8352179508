"""One training step as a pure function: (state, batch, frozen) -> (next state, metrics)."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from vit_jax.models.batch_norm import statistics, with_statistics, without_statistics
from vit_jax.objectives import Batch, Loss
from vit_jax.parallel.gather import gathering
from vit_jax.training import optimizer as optimizer_lib
from vit_jax.training.state import State
from vit_jax.training.trained import Trained

Metrics = dict[str, jax.Array]
Prepare = Callable[..., Batch]  # (batch of the pipeline, key=) -> batch for the loss
Frozen = Mapping[str, Any]  # parameters of the frozen models, by name
Build = Callable[[Any, Batch], Any]  # (parameters, batch) -> the model for its images
Bind = Callable[[Frozen], Mapping[str, Any]]  # parameters of the frozen models -> models


class WithLoss(Protocol):
    """The part of an objective that a step uses."""

    def loss(self, model: Any, batch: Batch, *, key: jax.Array, frozen: Frozen) -> Loss: ...


# Sums () of the weights, and of the loss and the extras; and the running averages of the model.
_Summed = tuple[jax.Array, Metrics, dict[str, Any]]


def make_train_step(
    build: Build,
    *,
    prepare: Prepare,
    objective: WithLoss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    abstract: State,
    trained: Trained,
    compiler_options: Mapping[str, str],
    bind: Bind = dict,
    accumulate: int = 1,
    ema: float = 0.0,
    ema_warmup: float = 0.0,
    ema_begins: bool = True,
) -> jax.stages.Wrapped:
    """The jitted step: (state, batch, frozen) -> (next state, metrics). It donates the state only.

    The metrics, float32 () each, are loss, grad_norm (before clipping), param_norm (after the
    step), learning_rate, and the extras of the objective. Only the parameters that are `trained`
    have gradients. `build` makes the model for a batch, `bind` the models of `frozen`. The step is
    compiled for each size of the images.

    `accumulate` micro-batches are differentiated one after another; the sum of their gradients is
    sharded like the parameters. The results depend on the mesh by rounding only, and so they do on
    `accumulate`, except with batch norm, which uses the statistics of each micro-batch, and with
    dropout and stochastic depth, which draw anew for each. With `ema_begins` the first step makes
    the average a copy of the parameters.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    gradients = _gradients(build, objective, shardings["params"], trained)

    def step(state: State, batch: Batch, frozen: Frozen) -> tuple[State, Metrics]:
        params, key = state["params"], jax.random.wrap_key_data(state["key"])
        step_key = jax.random.fold_in(key, state["step"])
        batch = prepare(batch, key=key)
        models = bind(frozen)
        averages = statistics(build(params, batch))
        means, averages, grads = _mean_over(
            gradients, params, batch, step_key, models, averages=averages, parts=accumulate
        )
        updates, opt_state = optimizer.update(grads, state["opt_state"], params)
        part = optax.apply_updates(trained.part_of(params), updates)
        new_params = with_statistics(trained.merged(params, part), averages)
        new_state = state | {"params": new_params, "opt_state": opt_state}
        new_state["step"] = state["step"] + 1
        if ema:
            updates_seen = state["step"] + (0 if ema_begins else 1)
            new_state["ema"] = optimizer_lib.ema_update(
                state["ema"], new_params, decay=ema, step=updates_seen, warmup=ema_warmup
            )
        metrics = means | {
            "grad_norm": optax.tree.norm(trained.arrays(grads)),
            "param_norm": optax.tree.norm(without_statistics(new_params, averages)),
            "learning_rate": jnp.asarray(schedule(state["step"]), jnp.float32),
        }
        return new_state, metrics

    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=dict(compiler_options),
    )


def _gradients(
    build: Build, objective: WithLoss, shardings: Any, trained: Trained
) -> Callable[..., tuple[_Summed, Any]]:
    """The sums of the loss, and the gradients: of the mean if `whole`, of the sum otherwise."""

    def gradients(
        params: Any, batch: Batch, key: jax.Array, models: Frozen, *, whole: bool
    ) -> tuple[_Summed, Any]:
        def loss_of(part: Any) -> tuple[jax.Array, _Summed]:
            model = trained.model(lambda own: gathering(build(own, batch)), params, part)
            weight, sums = _sums(objective.loss(model, batch, key=key, frozen=models))
            mean = sums["loss"] / weight if whole else sums["loss"]
            return mean, (weight, sums, statistics(model))

        (_, summed), grads = jax.value_and_grad(loss_of, has_aux=True)(trained.part_of(params))
        return summed, jax.lax.with_sharding_constraint(grads, shardings)

    return gradients


def _sums(loss: Loss) -> tuple[jax.Array, Metrics]:
    """Sums over the examples of a batch: the weights, the loss and the extras."""
    assert "loss" not in loss.extras, "this name is the loss's"
    sums = {"loss": loss.values, **loss.extras}
    return loss.weights.sum(), {name: values.sum() for name, values in sums.items()}


def _mean_over(
    gradients: Callable[..., tuple[_Summed, Any]],
    params: Any,
    batch: Batch,
    key: jax.Array,
    models: Mapping[str, Any],
    *,
    averages: dict[str, Any],
    parts: int,
) -> tuple[Metrics, dict[str, Any], Any]:
    """Means of the loss and the extras over `parts` micro-batches together.

    Also returns the running averages after the last micro-batch, and the mean of the gradients;
    `averages` are those before the step.
    """
    if parts == 1:
        (weight, sums, averages), grads = gradients(params, batch, key, models, whole=True)
        return {name: value / weight for name, value in sums.items()}, averages, grads

    def split(x: jax.Array) -> jax.Array:
        # Part i has the rows i, i + parts, ..., so that no row leaves its device.
        return jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0)

    def part(averages: dict[str, Any], micro: Batch, key: jax.Array) -> tuple[Any, dict[str, Any]]:
        now = with_statistics(params, averages)
        (weight, sums, averages), grads = gradients(now, micro, key, models, whole=False)
        return (weight, sums, grads), averages

    def add(
        carry: tuple[Any, dict[str, Any]], part_of: tuple[Batch, jax.Array]
    ) -> tuple[Any, None]:
        total, averages = carry
        summed, averages = part(averages, *part_of)
        return (jax.tree.map(jnp.add, total, summed), averages), None

    micro, keys = jax.tree.map(split, batch), jax.random.split(key, parts)
    first = jax.tree.map(lambda x: x[0], micro)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(part, averages, first, keys[0])[0],
    )
    ((weight, sums, grads), averages), _ = jax.lax.scan(add, (zeros, averages), (micro, keys))
    means, grads = jax.tree.map(lambda x: x / weight, (sums, grads))
    return means, averages, grads
